"""What else a process touches, each as that process sees it: bus, clock, journal, hypervisor, Networking, Image."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from kilonova.agent.driver import PowerState
from kilonova.agent.journal import Journal
from kilonova.agent.sim.state import CachedImage, SimGuest, SimHost, SimState
from kilonova.agent.sqlite_writer import SqliteWriter
from kilonova.bus import Handler
from kilonova.bus.memory import MemoryBus, MemorySubscription, Reply
from kilonova.bus.messages import Answer, Command, Heartbeat, Message, ProgressReport, Result
from kilonova.errors import HostFailure, Transient, Unavailable
from kilonova.testing.cloud import StaticImages
from kilonova.testing.network import FakeNetworking
from kilonova.world import World
from tests.simulation.database import START
from tests.simulation.loop import Node, current
from tests.simulation.weather import Weather

T = TypeVar("T")
INJECTED = "Injected"
"""Every failure that was made up begins with it."""


class SimWorld(World):
    def __init__(self, node: Node, weather: Weather) -> None:
        self.random = random.Random(weather.chance.getrandbits(32))
        self._loop = node.loop
        self._skew = weather.skew * (weather.chance.random() - 0.5)

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(START + self._loop.now + self._skew, dt.UTC).replace(tzinfo=None)

    def monotonic(self) -> float:
        return self._loop.now

    def uuid(self) -> str:
        return made_uuid(self.random)


def made_uuid(chance: random.Random) -> str:
    digits = f"{chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


# -- bus

_NOISE = (Heartbeat, ProgressReport)


class _Subscription(MemorySubscription):
    """Runs its handlers as the process that listens, whoever sent the message."""

    def __init__(self, bus: MemoryBus, address: str, handler: Handler, concurrency: int, node: Node) -> None:
        super().__init__(bus, address, handler, concurrency)
        self.node = node

    def deliver(self, payload: bytes, reply: Reply | None) -> None:
        if len(self._running) >= self._concurrency:
            self._waiting.append((payload, reply))
            return
        task = self.node.spawn(self._handle(payload, reply))
        self._running.add(task)
        task.add_done_callback(self._ended, context=self.node.context())


class SimBus(MemoryBus):
    """The broker: what it was given it keeps, whoever dies."""

    def __init__(self, weather: Weather) -> None:
        super().__init__()
        self._weather = weather

    async def send(self, address: str, message: Message) -> None:
        await self._weather.pass_by()
        self._check(address)
        await super().send(address, message)

    async def ask(self, address: str, message: Message, timeout: float) -> Answer:
        await self._weather.pass_by()
        self._check(address)
        return await super().ask(address, message, timeout)

    def reaches(self, address: str) -> bool:
        """It has a queue for those who were there, and says nothing of who is."""
        return True

    def _check(self, address: str) -> None:
        if self._weather.happens(self._weather.broker_away):
            self._weather.trace.fault(current(), "broker away", address)
            raise Transient("The broker does not answer.")

    async def listen(self, address: str, handler: Handler, *, concurrency: int = 64) -> MemorySubscription:
        subscription = _Subscription(self, address, handler, concurrency, current())
        self._listeners.setdefault(address, []).append(subscription)
        return subscription

    def forget_all(self, node: Node) -> None:
        """A process has died: its messages are lost, its queues gone."""
        for group in list(self._listeners.values()):
            for subscription in list(group):
                if isinstance(subscription, _Subscription) and subscription.node is node:
                    self.forget(subscription)

    def _after_tamper(self, address: str, message: Message, action: Callable[[], None]) -> None:
        weather, sender, brief = self._weather, current(), _brief(message)
        if not isinstance(message, _NOISE):
            weather.trace.did(sender, f"sends {brief} to {address}")
        for delay in weather.deliveries(sender, address, brief):
            weather.loop.call_later(delay, action, context=weather.loop.world.context())


def _brief(message: Message) -> str:
    if isinstance(message, Command):
        return f"{message.verb} {message.key}"
    if isinstance(message, Result):
        return f"Result {message.key} {message.error_kind or ''}"
    return type(message).__name__


# -- journal and hypervisor: they belong to the host and outlive its agent


class _Writer(SqliteWriter):
    def __init__(self, weather: Weather, raw: sqlite3.Connection) -> None:
        self._weather = weather
        self._raw = raw
        self.commits = 0
        self._written_at = self._told_at = 0.0
        """One thread does it: nothing overtakes anything."""

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    def run(self, job: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """What was handed over is written after a moment, unless the process died before; then its caller hears."""
        weather, node = self._weather, current()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def write() -> None:
            value: Any = None
            error: BaseException | None = None
            if weather.happens(weather.journal_fails):
                weather.trace.fault(node, "journal fails")
                error = sqlite3.OperationalError("database or disk is full")
            else:
                ((value, error),) = self._commit(self._raw, [job])
            self._told_at = max(self._told_at, weather.loop.now + weather.delay())
            weather.loop.call_at(self._told_at, tell, value, error, context=node.context())

        def tell(value: Any, error: BaseException | None) -> None:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(value)

        self._written_at = max(self._written_at, weather.loop.now + weather.delay())
        weather.loop.call_at(self._written_at, write, context=node.context())
        return future


class JournalFile:
    """One for all hosts, for one run after another."""

    def __init__(self) -> None:
        made = Journal(":memory:")
        self.raw = made._writer._connect()

    def clear(self) -> None:
        self.raw.executescript("DELETE FROM command; DELETE FROM newest;")

    def journal(self, weather: Weather) -> Journal:
        made = Journal(":memory:")
        made._writer = _Writer(weather, self.raw)
        return made


class SimHypervisor(SimState):
    """The hosts' guests; what an agent did to one is done, however soon it dies."""

    def __init__(self, weather: Weather, plugged: Callable[[str, SimGuest], None]) -> None:
        self._weather = weather
        self._plugged = plugged
        self.hosts: dict[str, SimHost] = {}
        self.reboots: Counter[tuple[str, str]] = Counter()
        """How often each marker's reboot took effect, by server."""
        self._rebooted: Counter[str] = Counter()
        self.states: dict[str, list[tuple[float, PowerState]]] = {}
        """Of each server what its guest's power state was, and from when on."""

    def note(self, guest: SimGuest) -> None:
        """After a guest's power state may have changed."""
        known = self.states.setdefault(guest.uuid, [])
        if not known or known[-1][1] != guest.power_state:
            known.append((self._weather.loop.now, guest.power_state))
        total = guest.effects.get("rebooted", 0)
        if total > self._rebooted[guest.uuid]:
            self.reboots[guest.uuid, guest.boot_marker] += total - self._rebooted[guest.uuid]
            self._rebooted[guest.uuid] = total

    async def host(self, name: str) -> SimHost:
        return self.hosts.setdefault(name, SimHost())

    async def save(self, host: str, guest: SimGuest) -> None:
        self.note(guest)
        if guest.taps:
            self._plugged(host, guest)
        await self._weather.pass_by()

    async def forget(self, host: str, uuid: str) -> None:
        await self._weather.pass_by()

    async def save_image(self, host: str, image_id: str, image: CachedImage) -> None:
        await self._weather.pass_by()

    async def forget_image(self, host: str, image_id: str) -> None:
        await self._weather.pass_by()


class Verbs:
    """Lets the hypervisor's verbs take time, and fail."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather

    async def before(self, host: str, verb: str, uuid: str) -> None:
        weather = self._weather
        weather.trace.did(current(), f"{verb} {uuid[:8]}")
        await asyncio.sleep(weather.delay() * weather.chance.choice((1, 1, 10, 200)))
        self._strike(host, verb, "before")

    async def after(self, host: str, verb: str, uuid: str) -> None:
        self._weather.trace.did(current(), f"{verb} {uuid[:8]} is done")
        await self._weather.pass_by()
        self._strike(host, verb, "after")

    def _strike(self, host: str, verb: str, when: str) -> None:
        weather = self._weather
        if weather.happens(weather.verb_fails):
            kind = weather.chance.choice((HostFailure, Transient, RuntimeError))
            weather.trace.fault(host, "verb fails", f"{when} {verb}: {kind.__name__}")
            raise kind(f"{INJECTED} failure {when} '{verb}'.")


# -- other services


class SimNetwork:
    """Networking's API as a process sees it: what was sent is done, whoever lives to hear of it."""

    def __init__(self, network: FakeNetworking, weather: Weather) -> None:
        self._network = network
        self._weather = weather

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._network, name)
        weather = self._weather

        async def served(*args: Any, **kw: Any) -> Any:
            await weather.pass_by()
            result = await call(*args, **kw)
            await weather.pass_by()
            return result

        async def called(*args: Any, **kw: Any) -> Any:
            if weather.happens(weather.network_away):
                weather.trace.fault(current(), "network away", f"before {name}")
                raise Unavailable("Networking does not answer.")
            result = await asyncio.shield(weather.loop.world.spawn(served(*args, **kw)))
            if weather.happens(weather.network_away):
                weather.trace.fault(current(), "network away", f"after {name}")
                raise Unavailable("Networking does not answer.")
            return result

        return called


class SimImages(StaticImages):
    def __init__(self, weather: Weather) -> None:
        super().__init__()
        self._weather = weather
        self.add("image-1", size=64)

    async def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        await self._weather.pass_by()
        async for chunk in super().download(image_id, token, offset):
            yield chunk
