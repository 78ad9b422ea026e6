"""What an agent says unasked: heartbeats, the host's inventory, power states. And the timer for it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import structlog

from kilonova.agent.allocation import Allocation
from kilonova.agent.driver import Driver, GuestEvent, Inventory
from kilonova.agent.provider_config import NOTHING_MORE, Additions
from kilonova.bus import Bus
from kilonova.bus.messages import Heartbeat, Heartbeats, HostReport, Message, PowerReport, Unchanged
from kilonova.errors import KilonovaError
from kilonova.world import World

log = structlog.get_logger(__name__)

Job = Callable[[], Awaitable[None] | None]
"""A plain function is done at once, an asynchronous one in a task."""

_TICK = 0.25
"""Seconds that the timer sleeps at most, so that a job added meanwhile is not late by more."""
_GRAIN = 0.2
"""Seconds that it sleeps at least: with many hosts, their jobs of that time are done together."""
_INVENTORY = 60.0
"""Seconds between two looks at the inventory."""
_MOMENT = 1.0
"""Seconds over which a process with many hosts collects their heartbeats."""
_JITTER = 0.1
"""Share of a period by which each turn varies, so that many hosts do not speak in chorus."""


class Periodic:
    """One repeating job. A turn is left out while the turn before it still runs."""

    __slots__ = ("due", "job", "period", "stopped", "task")

    def __init__(self, period: float, job: Job, due: float) -> None:
        self.period = period
        self.job = job
        self.due = due
        self.stopped = False
        self.task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        self.stopped = True
        if self.task is not None:
            self.task.cancel()


class Ticker:
    """One timer for the periodic jobs of any number of agents."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heap: list[tuple[float, int, Periodic]] = []
        self._number = itertools.count()
        self._task: asyncio.Task[None] | None = None

    def every(self, period: float, job: Job, *, first: float = 0.0) -> Periodic:
        """Run `job` in `first` seconds and about every `period` seconds from then on, until `stop()` is called."""
        periodic = Periodic(period, job, self._world.monotonic() + first)
        self._push(periodic)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="ticker")
        return periodic

    def _push(self, periodic: Periodic) -> None:
        heapq.heappush(self._heap, (periodic.due, next(self._number), periodic))

    async def _run(self) -> None:
        """Ends by itself when no job is left."""
        while self._heap:
            now = self._world.monotonic()
            while self._heap and self._heap[0][0] <= now:
                periodic = heapq.heappop(self._heap)[2]
                if periodic.stopped:
                    continue
                if periodic.task is None or periodic.task.done():
                    self._begin(periodic)
                periodic.due = now + periodic.period * self._world.random.uniform(1 - _JITTER, 1 + _JITTER)
                self._push(periodic)
            if self._heap:
                await self._world.sleep(max(_GRAIN, min(self._heap[0][0] - now, _TICK)))

    def _begin(self, periodic: Periodic) -> None:
        if inspect.iscoroutinefunction(periodic.job):
            periodic.task = asyncio.get_running_loop().create_task(_turn(periodic.job))
            return
        with _telling(periodic.job):
            periodic.job()


async def _turn(job: Job) -> None:
    with _telling(job):
        turn = job()
        if turn is not None:
            await turn


@contextlib.contextmanager
def _telling(job: Job) -> Iterator[None]:
    try:
        yield
    except KilonovaError as error:
        log.warning("agent.report_failed", job=job.__name__, error=error.message)
    except Exception:
        log.exception("agent.report_failed", job=job.__name__)


class Pulse:
    """Heartbeats of all hosts of a process: those that fall into one moment go in one message."""

    def __init__(self, bus: Bus, world: World) -> None:
        self._bus = bus
        self._world = world
        self._hosts: dict[str, str] = {}
        self._unchanged: dict[str, Unchanged] = {}
        self._sending: asyncio.Task[None] | None = None

    def add(self, host: str, incarnation: str, unchanged: Unchanged | None = None) -> None:
        self._hosts[host] = incarnation
        if unchanged is not None:
            self._unchanged[host] = unchanged
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send(), name="pulse")

    async def _send(self) -> None:
        await self._world.sleep(_MOMENT)
        hosts, self._hosts = self._hosts, {}
        unchanged, self._unchanged = self._unchanged, {}
        # One that the broker does not take is made good by the next.
        with contextlib.suppress(KilonovaError):
            await self._bus.send("conductor", Heartbeats(hosts=hosts, binary="nova-compute", unchanged=unchanged))


class Reporter:
    """Speaks for one host. Lost reports are made good by later ones."""

    def __init__(
        self,
        *,
        host: str,
        incarnation: str,
        boot_id: str,
        driver: Driver,
        bus: Bus,
        world: World,
        ticker: Ticker,
        busy: Callable[[str], bool],
        report_interval: float,
        sync_power_state_interval: float,
        inventory_repeat: float = 300.0,
        allocation: Allocation | None = None,
        additions: Additions = NOTHING_MORE,
        pulse: Pulse | None = None,
    ) -> None:
        """Intervals in seconds. `pulse`: shared by hosts of one process.

        `busy`: a command works on this server now, so its power states are passing ones.
        """
        self.host = host
        self.incarnation = incarnation
        self.boot_id = boot_id
        self._driver = driver
        self._bus = bus
        self._world = world
        self._ticker = ticker
        self._pulse = pulse
        self._busy = busy
        self._report_interval = report_interval
        self._power_interval = sync_power_state_interval
        self._inventory_repeat = inventory_repeat
        self._allocation = allocation
        self._additions = additions
        self._wait = report_interval
        """Seconds without news after which the last report is recalled; short at first, as it may have been lost."""
        self._periodic: list[Periodic] = []
        self._digest = ""
        """Of the last report."""
        self._seen: Inventory | None = None
        self._told = 0.0
        """When it was reported or recalled."""
        self._pending: dict[str, int] = {}
        self._passing: dict[str, int] = {}
        self._events: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.report()
        if self._pulse is None:
            await self._send_quietly(self._heartbeat_message())
        early = self._world.random.random
        beat = self.heartbeat if self._pulse is None else self._pulse_beat
        self._periodic = [
            self._ticker.every(self._report_interval, beat, first=self._report_interval * early()),
            self._ticker.every(_INVENTORY, self.inventory, first=self._report_interval * (1 + early())),
            self._ticker.every(self._power_interval, self.power, first=self._power_interval * (1 + early()) / 2),
        ]
        self._events = asyncio.get_running_loop().create_task(self._follow(), name=f"events-{self.host}")

    async def stop(self) -> None:
        for periodic in self._periodic:
            periodic.stop()
        tasks = [task for task in (self._events, self._flushing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def heartbeat(self) -> None:
        """With some of them the last report is recalled, in case it was lost."""
        await self._bus.send("conductor", self._heartbeat_message(self._recalled()))

    def _pulse_beat(self) -> None:
        """The same, of a host among others."""
        assert self._pulse is not None
        self._pulse.add(self.host, self.incarnation, self._recalled())

    def _heartbeat_message(self, unchanged: Unchanged | None = None) -> Heartbeat:
        return Heartbeat(host=self.host, binary="nova-compute", incarnation=self.incarnation, unchanged=unchanged)

    def _recalled(self) -> Unchanged | None:
        now = self._world.monotonic()
        if self._seen is None or now - self._told < self._wait:
            return None
        self._told = now
        self._wait = min(self._wait * 2, self._inventory_repeat)
        return Unchanged(
            digest=self._digest,
            hypervisor_hostname=self._seen.hypervisor_hostname,
            uptime=self._seen.uptime,
            disk_available_least=self._seen.disk_available_least,
        )

    async def inventory(self) -> None:
        """Report the inventory when it changed."""
        inventory = await self._look()
        if self._digest_of(inventory) == self._digest:
            self._seen = inventory
            return
        self._wait = self._report_interval
        await self._bus.send("conductor", self._report_of(inventory))

    async def report(self) -> None:
        """The whole of it: at the start, and when a conductor asks."""
        await self._send_quietly(await self.host_report())

    async def host_report(self) -> HostReport:
        return self._report_of(await self._look(), await self.states())

    async def _look(self) -> Inventory:
        return self._additions.to(await self._driver.inventory())

    def _report_of(self, inventory: Inventory, states: dict[str, int] | None = None) -> HostReport:
        self._digest = self._digest_of(inventory)
        self._seen, self._told = inventory, self._world.monotonic()
        return HostReport(
            host=self.host,
            incarnation=self.incarnation,
            inventory=inventory,
            boot_id=self.boot_id,
            allocation=self._allocation,
            digest=self._digest,
            states=states,
        )

    def _digest_of(self, inventory: Inventory) -> str:
        """Of all that a report says, but for what always moves."""
        lasting = msgspec.structs.replace(inventory, uptime=None, disk_available_least=None)
        said = (self.incarnation, self.boot_id, self._allocation, lasting)
        return hashlib.blake2b(msgspec.json.encode(said, order="deterministic"), digest_size=16).hexdigest()

    async def power(self, *, routine: bool = True) -> None:
        """Report the power states of all guests of ours."""
        report = PowerReport(
            host=self.host,
            incarnation=self.incarnation,
            states=await self.states(),
            complete=True,
            routine=routine,
        )
        await self._bus.send("conductor", report)

    async def states(self) -> dict[str, int]:
        """Power states of every guest of ours."""
        guests = await self._driver.guests()
        return {guest.uuid: int(guest.power_state) for guest in guests if guest.deployment_id is not None}

    def settled(self, server_uuid: str, power_state: object) -> None:
        """A server's commands have ended with this power state: report only what came to differ from it."""
        passing = self._passing.pop(server_uuid, None)
        if passing is not None and passing != power_state:
            self._report(server_uuid, passing)

    async def _follow(self) -> None:
        """Report power states as the hypervisor tells them, those of a server under way when it is settled."""
        while True:
            try:
                async for event in self._driver.events():
                    self._saw(event)
                return
            except Exception:
                log.exception("agent.events_failed", host=self.host)
                await self._world.sleep(5.0)
                await self.power(routine=False)

    def _saw(self, event: GuestEvent) -> None:
        if self._busy(event.uuid):
            self._passing[event.uuid] = int(event.power_state)
        else:
            self._report(event.uuid, int(event.power_state))

    def _report(self, server_uuid: str, power_state: int) -> None:
        self._pending[server_uuid] = power_state
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        """A moment's events in one message. What cannot be sent is left to the next complete report."""
        while self._pending:
            await self._world.sleep(0.1)
            states, self._pending = self._pending, {}
            await self._send_quietly(PowerReport(host=self.host, incarnation=self.incarnation, states=states))

    async def _send_quietly(self, message: Message) -> None:
        try:
            await self._bus.send("conductor", message)
        except KilonovaError as error:
            log.warning("agent.report_failed", host=self.host, message=type(message).__name__, error=error.message)
