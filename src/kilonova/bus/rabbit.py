"""The bus over RabbitMQ.

One plain queue per address. Queues and messages are not durable, queues that
nobody listens at vanish after a while and messages that nobody takes expire:
whatever matters is sent again by whoever needs it. Sending and listening have
a connection each, so that a broker that holds senders back still gets
acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import aio_pika
import msgspec
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage

from kilonova.bus import ONE_AT_A_TIME, Handler
from kilonova.bus.link import BROKER_ERRORS, CLOSE, CONNECT, Link, RabbitOptions, within
from kilonova.bus.messages import Answer, Message
from kilonova.errors import KilonovaError, Transient, Unavailable
from kilonova.metrics import families

__all__ = ["RabbitBus", "RabbitOptions", "RabbitSubscription"]

log = structlog.get_logger(__name__)

QUEUE_ARGUMENTS: dict[str, Any] = {"x-expires": 3_600_000, "x-message-ttl": 60_000}
"""Milliseconds: an hour until an unused queue goes, a minute until a message nobody takes does."""
_PUBLISH = 10.0
"""Seconds until the broker has to have confirmed a message."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


class RabbitSubscription:
    """One listener on every connection that there will be."""

    def __init__(self, bus: RabbitBus, address: str, handler: Handler, concurrency: int) -> None:
        self.address = address
        self._bus = bus
        self._handler = handler
        self._concurrency = concurrency
        self.connection: AbstractConnection | None = None
        """Where it listens now."""
        self._stop_delivery: Callable[[], Coroutine[Any, Any, object]] | None = None
        self._channel: AbstractChannel | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, connection: AbstractConnection) -> None:
        """Consume on this connection. Raises what the broker does."""
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=self._concurrency)
        name = self._bus.queue_name(self.address)
        alone = {"x-single-active-consumer": True} if self.address in ONE_AT_A_TIME else {}
        queue = await channel.declare_queue(name, durable=False, arguments=QUEUE_ARGUMENTS | alone)
        underlay = await channel.get_underlay_channel()
        # A queue that goes with its node ends its consumers and nothing else.

        async def cancelled(*_: object) -> None:
            self._bus.listening.reset(connection)

        def channel_closed(*_: object) -> None:
            if not self._closed:
                self._bus.listening.reset(connection)

        underlay.on_consumer_cancel_callbacks.add(cancelled)
        channel.close_callbacks.add(channel_closed)
        tag = await queue.consume(self._arrived)
        self._stop_delivery = functools.partial(queue.cancel, tag)
        self._channel = channel
        self.connection = connection

    async def _arrived(self, message: AbstractIncomingMessage) -> None:
        # A task of our own: one of the channel's ends with the channel, whatever it is about.
        task = asyncio.get_running_loop().create_task(self._handle(message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _handle(self, incoming: AbstractIncomingMessage) -> None:
        kind = incoming.type or "message"
        answer: Answer | None = None
        try:
            message = _decode(incoming.body)
            if self._bus.believes(incoming, message, self.address):
                answer = await self._handler(message)
        except msgspec.DecodeError as error:
            log.warning("bus.not_understood", address=self.address, message=kind, error=str(error))
            answer = Answer(error="The receiver does not understand this message.")
        except KilonovaError as error:
            answer = Answer(error=error.message)
            if incoming.reply_to is None:
                log.warning("bus.handler_failed", address=self.address, message=kind, error=str(error))
        except Exception:
            # Not delivered again: who sent it repeats what matters, and a message that always fails would spin.
            log.exception("bus.handler_failed", address=self.address, message=kind)
            answer = Answer(error="The receiver failed to handle the question.")
        if incoming.reply_to is not None and answer is not None:
            await self._bus.reply(incoming.reply_to, incoming.correlation_id, answer)
        # Where the channel is gone the broker delivers the message again, and the receivers cope.
        with contextlib.suppress(*BROKER_ERRORS):
            await incoming.ack()

    async def close(self) -> None:
        """Take nothing more; wait for the handlers that run."""
        self._closed = True
        self._bus.forget(self)
        channel, self._channel = self._channel, None
        running = [task for task in self._running if task is not asyncio.current_task()]
        if self._stop_delivery is not None:
            # The channel stays until the handlers have acknowledged on it.
            with contextlib.suppress(*BROKER_ERRORS):
                await within(CLOSE, self._stop_delivery())
        if running:
            await asyncio.wait(running)
        if channel is not None:
            with contextlib.suppress(*BROKER_ERRORS):
                await within(CLOSE, channel.close())


class RabbitBus:
    """See `kilonova.bus.Bus`."""

    def __init__(self, options: RabbitOptions) -> None:
        self._options = options
        self._subscriptions: list[RabbitSubscription] = []
        self._asked: dict[str, tuple[str, asyncio.Future[Answer]]] = {}
        """Address and answer of each question, by its number."""
        self._exchange: AbstractExchange | None = None
        self._reply_queue: str | None = None
        self.sending = Link(options, "send", self._open_sending)
        self.listening = Link(options, "listen", self._open_listening)

    def missed(self, window: float) -> float:
        return self.listening.missed(window)

    def queue_name(self, address: str) -> str:
        return f"{self._options.prefix}.{address}"

    async def start(self) -> None:
        """Connect; where no broker answers within seconds, go on and keep trying."""
        self.sending.start()
        self.listening.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT):
                await self.sending.up.wait()
                await self.listening.up.wait()

    async def close(self) -> None:
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self.listening.close()
        await self.sending.close()
        self._fail_questions("The bus was closed.")

    async def send(self, address: str, message: Message) -> None:
        await self._publish(self.queue_name(address), _encode(message), type(message).__name__)

    async def ask(self, address: str, message: Message, timeout: float) -> Answer:
        # Not to be guessed: whoever knows the queue of answers could answer in another's place.
        number = secrets.token_hex(16)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = address, future
        kind = type(message).__name__
        try:
            async with asyncio.timeout(timeout):
                await self._publish(self.queue_name(address), _encode(message), kind, number=number, ask=True)
                answer: Answer = await future
                return answer
        except TimeoutError:
            raise Unavailable(f"No answer from '{address}' within {timeout:g} seconds.") from None
        except Transient as error:
            raise Unavailable(error.message) from error
        finally:
            del self._asked[number]

    async def listen(self, address: str, handler: Handler, *, concurrency: int = 64) -> RabbitSubscription:
        subscription = RabbitSubscription(self, address, handler, concurrency)
        self._subscriptions.append(subscription)
        connection = self.listening.connection
        if connection is not None and self.listening.up.is_set():
            try:
                await within(CONNECT, subscription.open(connection))
            except BROKER_ERRORS as error:
                log.warning("bus.not_listening", address=address, reason=repr(error))
                self.listening.reset(connection)
        return subscription

    def forget(self, subscription: RabbitSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def reply(self, queue: str, number: str | None, answer: Answer) -> None:
        # After an absence of the broker the question's connection may be back before the answer's.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT):
                await self.sending.up.wait()
        try:
            await self._publish(queue, _encode(answer), "Answer", number=number)
        except Transient as error:
            log.warning("bus.answer_not_sent", reason=error.message)

    async def _publish(
        self, queue: str, body: bytes, kind: str, *, number: str | None = None, ask: bool = False
    ) -> None:
        exchange = self._exchange
        if exchange is None or not self.sending.up.is_set():
            raise Transient("The message broker cannot be reached.")
        message = aio_pika.Message(
            body,
            content_type="application/msgpack",
            delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT,
            type=kind,
            correlation_id=number,
            reply_to=self._reply_queue if ask else None,
            user_id=self.sending.user,
        )
        try:
            await exchange.publish(message, queue, mandatory=False, timeout=_PUBLISH)
        except BROKER_ERRORS as error:
            raise Transient("The message broker did not take a message.", details=repr(error)) from error
        except asyncio.CancelledError:
            sender = asyncio.current_task()
            if sender is not None and sender.cancelling():
                raise
            # The library cancels what waits on a connection that is lost; nobody means the sender.
            raise Transient("The message broker did not take a message.") from None

    async def _open_sending(self, connection: AbstractConnection) -> None:
        self._fail_questions("The connection to the message broker was lost.")
        channel = await connection.channel(publisher_confirms=True)
        channel.close_callbacks.add(lambda *_: self.sending.reset(connection))
        replies = await channel.declare_queue(exclusive=True, auto_delete=True)
        underlay = await channel.get_underlay_channel()

        async def cancelled(*_: object) -> None:
            self.sending.reset(connection)

        underlay.on_consumer_cancel_callbacks.add(cancelled)
        await replies.consume(self._answered, no_ack=True)
        self._reply_queue = replies.name
        self._exchange = channel.default_exchange

    async def _open_listening(self, connection: AbstractConnection) -> None:
        # More may be added while some are opened.
        while missing := [s for s in self._subscriptions if s.connection is not connection]:
            await missing[0].open(connection)

    async def _answered(self, message: AbstractIncomingMessage) -> None:
        address, future = self._asked.get(message.correlation_id or "", ("", None))
        if future is None or future.done():
            return
        senders = self._options.senders
        if senders is None or senders.may_answer(message.user_id, address):
            future.set_result(_decode_answer(message.body))
        else:
            _refused(message.user_id, "Answer", address)

    def believes(self, incoming: AbstractIncomingMessage, message: Message, address: str) -> bool:
        """Whether its sender may say this; who may not is counted and logged, and gets no answer."""
        senders = self._options.senders
        if senders is None or senders.may_send(incoming.user_id, message):
            return True
        _refused(incoming.user_id, type(message).__name__, address)
        return False

    def _fail_questions(self, why: str) -> None:
        for _, future in self._asked.values():
            if not future.done():
                future.set_exception(Unavailable(why))


def _refused(user: str | None, kind: str, address: str) -> None:
    families.MESSAGES_REFUSED.labels(kind).inc()
    log.warning("bus.sender_refused", user=user, message=kind, address=address)
