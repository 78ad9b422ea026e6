"""The bus of one process. Messages are serialised all the same, so that nothing is shared by reference.

The rules are those of RabbitMQ with plain queues: listeners of one address take
turns, a message to an address that nobody listens at is dropped, and an answer
finds its way back to who asked. Only a question that nobody would hear fails at
once here, instead of by its time-out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from kilonova.bus import ONE_AT_A_TIME, Handler
from kilonova.bus.messages import Answer, Message
from kilonova.errors import KilonovaError, Unavailable

log = structlog.get_logger(__name__)

Tamper = Callable[[str, Message], Sequence[float]]
"""For tests: the delays in seconds after which copies of this message arrive; `()` loses it, `(0, 0)` doubles it.

Answers pass through it too, with the address `reply`.
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode

Reply = Callable[[Answer], None]


class MemorySubscription:
    """One listener: at most `concurrency` handlers at a time, the rest waits in order."""

    def __init__(self, bus: MemoryBus, address: str, handler: Handler, concurrency: int) -> None:
        self.address = address
        self._bus = bus
        self._handler = handler
        self._concurrency = concurrency
        self._waiting: deque[tuple[bytes, Reply | None]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def deliver(self, payload: bytes, reply: Reply | None) -> None:
        if len(self._running) >= self._concurrency:
            self._waiting.append((payload, reply))
            return
        task = asyncio.get_running_loop().create_task(self._handle(payload, reply))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting:
            self.deliver(*self._waiting.popleft())

    async def _handle(self, payload: bytes, reply: Reply | None) -> None:
        message = _decode(payload)
        try:
            answer = await self._handler(message)
        except KilonovaError as error:
            answer = Answer(error=error.message)
            if reply is None:
                log.warning(
                    "bus.handler_failed", address=self.address, message=type(message).__name__, error=str(error)
                )
        except Exception:
            # Not delivered again: who sent it repeats what matters, and a message that always fails would spin.
            log.exception("bus.handler_failed", address=self.address, message=type(message).__name__)
            answer = Answer(error="The receiver failed to handle the question.")
        if reply is not None and answer is not None:
            reply(answer)

    async def close(self) -> None:
        """Take nothing more; wait for the handlers that run. What waits goes to another listener or is dropped."""
        self._bus.forget(self)
        waiting, self._waiting = self._waiting, deque()
        for payload, reply in waiting:
            self._bus.put(self.address, payload, reply)
        running = [task for task in self._running if task is not asyncio.current_task()]
        if running:
            await asyncio.wait(running)


class MemoryBus:
    """See `kilonova.bus.Bus`."""

    def __init__(self, *, tamper: Tamper | None = None) -> None:
        self.tamper = tamper
        self._listeners: dict[str, list[MemorySubscription]] = {}
        self._turn = itertools.count()
        self._closed = False

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        for subscription in [s for group in self._listeners.values() for s in group]:
            await subscription.close()

    async def send(self, address: str, message: Message) -> None:
        self._dispatch(address, message, None)

    async def ask(self, address: str, message: Message, timeout: float) -> Answer:
        if not self.reaches(address):
            # Without it a process that stops would wait for those of its parts that have stopped already.
            raise Unavailable(f"Nobody listens at '{address}'.")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def arrived(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        def reply(answer: Answer) -> None:
            copy = msgspec.msgpack.decode(_encode(answer), type=Answer)
            self._after_tamper("reply", copy, lambda: arrived(copy))

        self._dispatch(address, message, reply)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unavailable(f"No answer from '{address}' within {timeout:g} seconds.") from None

    def reaches(self, address: str) -> bool:
        """Whether somebody listens there now."""
        return address in self._listeners

    def missed(self, window: float) -> float:
        return 0.0

    async def listen(self, address: str, handler: Handler, *, concurrency: int = 64) -> MemorySubscription:
        subscription = MemorySubscription(self, address, handler, concurrency)
        self._listeners.setdefault(address, []).append(subscription)
        return subscription

    def forget(self, subscription: MemorySubscription) -> None:
        group = self._listeners.get(subscription.address, [])
        if subscription in group:
            group.remove(subscription)
        if not group:
            self._listeners.pop(subscription.address, None)

    def put(self, address: str, payload: bytes, reply: Reply | None) -> None:
        """Hand one serialised message to the next listener in turn (or the only one that counts), if there is one."""
        if self._closed or not (group := self._listeners.get(address)):
            return
        first = len(group) == 1 or address in ONE_AT_A_TIME
        group[0 if first else next(self._turn) % len(group)].deliver(payload, reply)

    def _dispatch(self, address: str, message: Message, reply: Reply | None) -> None:
        payload = _encode(message)
        self._after_tamper(address, message, lambda: self.put(address, payload, reply))

    def _after_tamper(self, address: str, message: Message, action: Callable[[], None]) -> None:
        for delay in (0.0,) if self.tamper is None else self.tamper(address, message):
            if delay <= 0:
                action()
            else:
                asyncio.get_running_loop().call_later(delay, action)
