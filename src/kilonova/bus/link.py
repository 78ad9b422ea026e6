"""A connection to RabbitMQ that comes back, whatever the network or the library does to it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aio_pika
import msgspec
import structlog
from aio_pika.abc import AbstractConnection

from kilonova.bus.identity import Senders
from kilonova.bus.transport import BrokerAddress, TlsOptions

log = structlog.get_logger(__name__)

CONNECT = 10.0
"""Seconds that a connection gets to be there."""
CLOSE = 2.0
"""Seconds to take leave of a broker; it notices by itself, too."""
_RETRY = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between rounds of attempts to connect; the last one repeats."""
BROKER_ERRORS = (Exception,)
"""What the library raises where a connection breaks: its own errors, those of sockets, and now and then a bare
Exception, by which line was being read. A kind left out here would end what makes connections anew, for good."""

T = TypeVar("T")
OnOpen = Callable[[AbstractConnection], Awaitable[None]]


class RabbitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`heartbeat` in seconds. `prefix` keeps several deployments on one virtual host apart."""

    brokers: tuple[BrokerAddress, ...]
    tls: TlsOptions | None = None
    heartbeat: int = 30
    prefix: str = "kilonova"
    name: str = "kilonova"
    """Shown in the broker's list of connections."""
    senders: Senders | None = None
    """Who is believed what; None: everybody everything, as with one user for all."""


class Link:
    """A connection that comes back: to the next broker in turn, and set up anew by `on_open`."""

    def __init__(self, options: RabbitOptions, purpose: str, on_open: OnOpen) -> None:
        self._options = options
        self._purpose = purpose
        self._on_open = on_open
        self._context = options.tls.context() if options.tls is not None else None
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self.up = asyncio.Event()
        self._deaf: list[tuple[float, float]] = []
        """Recent times without a connection: from, until."""
        self._deaf_since: float | None = None
        self.connection: AbstractConnection | None = None
        self.user: str | None = None
        """Who we are to the broker that we are connected to."""

    def missed(self, window: float) -> float:
        """See `kilonova.bus.Bus`."""
        now = time.monotonic()
        self._deaf = [(start, end) for start, end in self._deaf if now - end < window]
        starts = [start for start, _ in self._deaf]
        if self._deaf_since is not None:
            starts.append(self._deaf_since)
        return now - min(starts) if starts else 0.0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"rabbit-{self._purpose}")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def reset(self, connection: AbstractConnection) -> None:
        """Something on this connection broke: make everything anew. Late news of earlier connections is ignored."""
        if connection is self.connection:
            self.up.clear()
            self._lost.set()

    async def _run(self) -> None:
        rounds = 0
        try:
            while True:
                for broker in self._options.brokers:
                    if await self._connect(broker):
                        rounds = 0
                        await self._lost.wait()
                        self._deaf_since = time.monotonic() - 2 * self._options.heartbeat
                        await self._drop()
                        log.warning("bus.connection_lost", broker=str(broker), purpose=self._purpose)
                await asyncio.sleep(_RETRY[min(rounds, len(_RETRY) - 1)] * random.uniform(0.7, 1.3))
                rounds += 1
        finally:
            await self._drop()

    async def _connect(self, broker: BrokerAddress) -> bool:
        self._lost.clear()
        try:
            await within(CONNECT, self._open(broker))
        except BROKER_ERRORS as error:
            log.warning("bus.not_connected", broker=str(broker), purpose=self._purpose, reason=repr(error))
            await self._drop()
            return False
        log.info("bus.connected", broker=str(broker), purpose=self._purpose)
        if not self._lost.is_set():
            self.up.set()
            if self._deaf_since is not None:
                self._deaf.append((self._deaf_since, time.monotonic()))
                self._deaf_since = None
        return True

    async def _open(self, broker: BrokerAddress) -> None:
        url = broker.amqp_url(tls=self._context is not None, heartbeat=self._options.heartbeat)
        properties: dict[str, Any] = {"connection_name": f"{self._options.name}-{self._purpose}"}
        connection = await aio_pika.connect(
            url, ssl_context=self._context, client_properties=properties, timeout=CONNECT
        )
        attempt = asyncio.current_task()
        if attempt is not None and attempt.cancelling():
            # Too late: another attempt is under way.
            await connection.close()
            raise asyncio.CancelledError
        self.connection = connection
        self.user = broker.user
        connection.close_callbacks.add(lambda *_: self.reset(connection))
        await self._on_open(connection)

    async def _drop(self) -> None:
        self.up.clear()
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(*BROKER_ERRORS):
                await within(CLOSE, connection.close())


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Its result, or TimeoutError. What does not end in time is left to itself.

    On a network that swallows packets the library's cleaning up can wait without end, whether it is cancelled or not.
    """
    task: asyncio.Future[T] = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.cancelled():
            # By the library, which cancels what waits for a connection that is lost; nobody means us.
            raise ConnectionError("the connection was lost")
        if task.done():
            return task.result()
        raise TimeoutError(f"not done after {seconds:g} s")
    finally:
        if not task.done():
            _abandoned.add(task)
            task.add_done_callback(_forget)
            task.cancel()


_abandoned: set[asyncio.Future[Any]] = set()
"""Nobody else refers to them, and a task that nobody refers to may vanish."""


def _forget(task: asyncio.Future[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()
