"""A process of the cloud, within this one: it can be killed or frozen wherever it touches the world outside.

Database, bus, journal, hypervisor, clock: a role gets skins of these that belong
to its process. After a kill none of its tasks ever returns from one, so that not
another line of it has an effect; what a transaction under way does is the
database's decision, as with a real kill. A freeze is the same until the thaw.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kilonova.agent.journal import Journal
from kilonova.agent.sim.state import CachedImage, SimGuest, SimHost, SimState
from kilonova.bus import Handler, Subscription
from kilonova.bus.memory import MemoryBus, MemorySubscription
from kilonova.bus.messages import (
    Answer,
    Heartbeat,
    HostReport,
    Message,
    PowerReport,
    ProgressReport,
    ServerQuestion,
)
from kilonova.db.engine import Database, Tx
from kilonova.networking import Networking
from kilonova.testing.network import FakeNetworking
from kilonova.world import World
from tests.workflows.harness import clock

T = TypeVar("T")

At = Callable[["Process", str], Awaitable[None]]
"""Told of every point that a process passes; may kill it, freeze it or raise."""

_NOISE = (Heartbeat, HostReport, PowerReport, ProgressReport, ServerQuestion)
"""Periodic messages: their numbers differ from run to run."""
_NOISY_WRITES = re.compile(r"Hosts\.|save_progress|renew|Reporter|expire_all")


class Process:
    def __init__(self, role: str, number: int, at: At) -> None:
        self.role = role
        self.number = number
        self.dead = False
        self._at = at
        self._go = asyncio.Event()
        self._go.set()
        self._listening: list[MemorySubscription] = []
        self._bus: MemoryBus | None = None

    def __repr__(self) -> str:
        return f"{self.role}#{self.number}"

    @property
    def frozen(self) -> bool:
        return not self.dead and not self._go.is_set()

    async def gate(self) -> None:
        """Returns at once in a living process, never in a dead one."""
        while not self._go.is_set():
            await self._go.wait()

    async def point(self, label: str) -> None:
        await self.gate()
        await self._at(self, label)
        await self.gate()

    def kill(self) -> None:
        self.dead = True
        self._go.clear()
        for subscription in self._listening:
            if self._bus is not None:
                self._bus.forget(subscription)

    def freeze(self) -> None:
        self._go.clear()

    def thaw(self) -> None:
        if not self.dead:
            self._go.set()

    def world(self, seed: int) -> World:
        return _World(self, seed)

    def database(self, db: Database) -> Database:
        return _Database(self, db)

    def bus(self, bus: MemoryBus) -> _Bus:
        self._bus = bus
        return _Bus(self, bus, self._listening)

    def journal(self, journal: Journal) -> Journal:
        return _Journal(self, journal)

    def network(self, network: FakeNetworking) -> Networking:
        return _Network(self, network)

    def state(self, state: SimState) -> SimState:
        return _State(self, state)


class _World(World):
    def __init__(self, process: Process, seed: int) -> None:
        super().__init__(seed)
        self._process = process

    def now(self) -> dt.datetime:
        return clock.now()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self._process.gate()


class _Database(Database):
    def __init__(self, process: Process, db: Database) -> None:
        self._process = process
        self._db = db
        self.is_sqlite = db.is_sqlite
        self.url = db.url

    async def read(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        await self._process.gate()
        result = await self._db.read(work)
        await self._process.gate()
        return result

    async def write(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        name = getattr(work, "__qualname__", "?").replace(".<locals>", "").removesuffix(".work")
        if _NOISY_WRITES.search(name):
            await self._process.gate()
            result = await self._db.write(work)
            await self._process.gate()
            return result
        await self._process.point(f"write {name} before")
        result = await self._db.write(work)
        await self._process.point(f"write {name} after")
        return result

    async def close(self) -> None:
        return


class _Bus:
    def __init__(self, process: Process, bus: MemoryBus, listening: list[MemorySubscription]) -> None:
        self._process = process
        self._bus = bus
        self._listening = listening

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    def missed(self, window: float) -> float:
        return self._bus.missed(window)

    async def send(self, address: str, message: Message) -> None:
        if isinstance(message, _NOISE):
            await self._process.gate()
            await self._bus.send(address, message)
            return
        name = type(message).__name__
        await self._process.point(f"send {name} before")
        await self._bus.send(address, message)
        await self._process.point(f"send {name} after")

    async def ask(self, address: str, message: Message, timeout: float) -> Answer:
        if not isinstance(message, _NOISE):
            await self._process.point(f"ask {type(message).__name__} before")
        await self._process.gate()
        answer = await self._bus.ask(address, message, timeout)
        await self._process.gate()
        return answer

    async def listen(self, address: str, handler: Handler, *, concurrency: int = 64) -> Subscription:
        async def handle(message: Message) -> Answer | None:
            if isinstance(message, _NOISE):
                await self._process.gate()
            else:
                await self._process.point(f"take {type(message).__name__} before")
            answer = await handler(message)
            await self._process.gate()
            return answer

        subscription = await self._bus.listen(address, handle, concurrency=concurrency)
        self._listening.append(subscription)
        return subscription


def _through(process: Process, call: Callable[..., Awaitable[Any]], label: str | None) -> Callable[..., Awaitable[Any]]:
    async def called(*args: Any, **kw: Any) -> Any:
        if label is None:
            await process.gate()
        else:
            await process.point(f"{label} before")
        result = await call(*args, **kw)
        if label is None:
            await process.gate()
        else:
            await process.point(f"{label} after")
        return result

    return called


class _Journal(Journal):
    """The journal's file belongs to the host: what was handed to it is written, whoever lives to hear of it."""

    def __init__(self, process: Process, journal: Journal) -> None:
        for name in ("record", "finish", "mark"):
            setattr(self, name, _through(process, getattr(journal, name), f"journal {name}"))
        for name in ("unfinished", "marked", "prune"):
            setattr(self, name, _through(process, getattr(journal, name), None))

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return


class _Network:
    """Networking's API as the process sees it: what was sent is done, whoever lives to hear of it."""

    def __init__(self, process: Process, network: FakeNetworking) -> None:
        for name in ("find", "show", "quota", "auto_network"):
            setattr(self, name, _through(process, getattr(network, name), None))
        for name in ("create", "update", "delete"):
            setattr(self, name, _through(process, getattr(network, name), f"network {name}"))

    find: Callable[..., Awaitable[Any]]
    show: Callable[..., Awaitable[Any]]
    quota: Callable[..., Awaitable[Any]]
    auto_network: Callable[..., Awaitable[Any]]
    create: Callable[..., Awaitable[Any]]
    update: Callable[..., Awaitable[Any]]
    delete: Callable[..., Awaitable[Any]]


class _State(SimState):
    def __init__(self, process: Process, state: SimState) -> None:
        self._process = process
        self._state = state

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    async def host(self, name: str) -> SimHost:
        await self._process.gate()
        return await self._state.host(name)

    async def save(self, host: str, guest: SimGuest) -> None:
        await self._process.point("hypervisor change before")
        await self._state.save(host, guest)
        await self._process.point("hypervisor change after")

    async def forget(self, host: str, uuid: str) -> None:
        await self._process.gate()
        await self._state.forget(host, uuid)

    async def save_image(self, host: str, image_id: str, image: CachedImage) -> None:
        await self._process.gate()
        await self._state.save_image(host, image_id, image)
        await self._process.gate()

    async def forget_image(self, host: str, image_id: str) -> None:
        await self._process.gate()
        await self._state.forget_image(host, image_id)
