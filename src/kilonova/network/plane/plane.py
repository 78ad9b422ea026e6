"""The plane of one host on the bus: takes plans, applies them, watches what happens on the host, reports."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from kilonova.bus import Bus, Subscription
from kilonova.bus.messages import Answer, Message
from kilonova.errors import KilonovaError
from kilonova.network.messages import GREETING_PERIOD, ROLE, PlaneGreeting, PlanePlan, PlaneReport, plane_address
from kilonova.network.plan import Plan
from kilonova.network.plane import events, pieces
from kilonova.network.plane.apply import Applier, Outcome
from kilonova.network.plane.links import Site
from kilonova.network.plane.metadata_proxy import MetadataProxy, MetadataTarget
from kilonova.network.plane.names import Spaces
from kilonova.world import World

log = structlog.get_logger(__name__)

PERIOD = 60.0
"""Seconds after which everything is looked at, should nothing have told of a change."""

GATHER = 0.02
"""Seconds for which what happens is gathered before it is looked at."""

PAUSES = (0.5, 30.0)
"""Seconds before what failed is tried again: the first, and the longest."""

STOP_TIME = 30.0
"""Seconds that a pass under way gets to end when the plane stops."""

REPORT_TURNS = 6
"""A report is repeated with every sixth greeting: one may be lost."""

_decode = msgspec.msgpack.Decoder(Plan).decode


class Plane:
    """`space` names the namespace with the guests' taps, and begins the names of all the others.

    `site.uplinks` are devices in that namespace; `prepare` makes sure of them and is called before every look at
    everything. What the plane has made lives on when it stops.
    """

    def __init__(
        self,
        bus: Bus,
        world: World,
        *,
        host: str,
        space: str,
        directory: Path,
        site: Site,
        metadata: MetadataTarget | None = None,
        prepare: Callable[[], None] = lambda: None,
        period: float = PERIOD,
    ) -> None:
        self.host = host
        self._bus = bus
        self._world = world
        self._site = site
        self._prepare = prepare
        self._period = period
        self._applier = Applier(Spaces(space), directory, site)
        self._proxy = MetadataProxy(metadata) if metadata is not None else None
        self._incarnation = world.uuid()
        self._plan: Plan | None = None
        self._digest = ""
        self._touched: set[str] = set()
        self._everything = True
        self._news = asyncio.Event()
        self._passing = asyncio.Lock()
        self._report: PlaneReport | None = None
        self._failures = 0
        self._watches: dict[str, tuple[int, events.Watch]] = {}
        self._daemons: dict[str, tuple[int, int]] = {}
        self._listening: Subscription | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Raises HostFailure when this machine cannot be a plane's."""
        await asyncio.to_thread(self._applier.prepare)
        await asyncio.to_thread(self._prepare)
        self._listening = await self._bus.listen(plane_address(self.host), self._take, concurrency=1)
        self._tasks = [
            asyncio.create_task(self._greet_for_ever(), name="plane: greet"),
            asyncio.create_task(self._work_for_ever(), name="plane: work"),
        ]

    async def stop(self) -> None:
        """What the plane was doing has ended: whoever removes it afterwards meets no thread that puts it back."""
        resting = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIME):
                resting = await self._passing.acquire()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if resting:
            self._passing.release()
        if self._listening is not None:
            await self._listening.close()
        if self._proxy is not None:
            await self._proxy.close()
        for space in list(self._watches):
            self._unwatch(space)
        for space in list(self._daemons):
            self._forget_daemon(space)

    async def _take(self, message: Message) -> Answer | None:
        if isinstance(message, PlanePlan):
            self._plan = _decode(message.content)
            self._digest = message.digest
            self._news.set()
        return None

    async def _greet_for_ever(self) -> None:
        turn = 0
        while True:
            await self._bus.send(
                ROLE,
                PlaneGreeting(
                    host=self.host, incarnation=self._incarnation, plan=self._digest, tunnel_ip=self._site.tunnel_ip
                ),
            )
            if turn % REPORT_TURNS == 0 and self._report is not None:
                await self._bus.send(ROLE, self._report)
            turn += 1
            await self._world.sleep(GREETING_PERIOD)

    # -- working

    async def _work_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._period):
                    await self._news.wait()
            except TimeoutError:
                self._everything = True
            await self._world.sleep(GATHER)
            self._news.clear()
            try:
                async with self._passing:
                    await self._pass()
            except (KilonovaError, OSError) as error:
                log.warning("plane.pass_failed", reason=getattr(error, "details", None) or str(error))
                self._again()
            except Exception:
                log.exception("plane.pass_failed")
                self._again()

    async def _pass(self) -> None:
        plan = self._plan
        if plan is None:
            return
        touched, self._touched = self._touched, set()
        if self._everything:
            await asyncio.to_thread(self._applier.settle)
            await asyncio.to_thread(self._prepare)
            touched |= {self._applier.spaces.host, *self._applier.inner}
            self._everything = False
        # Watched first: what happens after the look is seen.
        await self._watch()
        outcome = await asyncio.to_thread(self._applier.apply, plan, touched)
        await self._watch()
        await self._serve(plan)
        if outcome.failed:
            self._touched |= set(outcome.failed)
            self._again()
        else:
            self._failures = 0
        await self._tell(outcome)

    def _again(self) -> None:
        pause = min(PAUSES[0] * 2.0 ** min(self._failures, 16), PAUSES[1])
        self._failures += 1
        asyncio.get_running_loop().call_later(pause, self._news.set)

    async def _tell(self, outcome: Outcome) -> None:
        report = PlaneReport(
            host=self.host,
            incarnation=self._incarnation,
            ports=sorted(outcome.ports),
            routers=outcome.routers,
            floatingips=outcome.floatingips,
        )
        if report != self._report:
            self._report = report
            await self._bus.send(ROLE, report)

    async def _serve(self, plan: Plan) -> None:
        """Metadata's listeners, and who asks there."""
        if self._proxy is None:
            return
        spaces = self._applier.spaces
        wanted = {spaces.dhcp(each.network_id): each.clients for each in plan.dhcp}
        wanted |= {spaces.router(each.id): each.clients for each in plan.routers}
        for space, clients in wanted.items():
            self._proxy.know(space, {client.address: client for client in clients})
            piece = self._applier.inner.get(space)
            if piece is not None and not self._proxy.is_open(space):
                try:
                    listener = await asyncio.to_thread(pieces.listener, space, piece.proxy)
                    await self._proxy.open(space, listener)
                except OSError as error:
                    log.warning("plane.no_metadata", space=space, reason=str(error))
                    self._again()
        self._proxy.keep(wanted)

    # -- watching

    async def _watch(self) -> None:
        """Every namespace of ours, and what serves in it, tells when something happens to it."""
        spaces = {self._applier.spaces.host, *self._applier.inner}
        for space in set(self._watches) - spaces:
            self._unwatch(space)
            self._forget_daemon(space)
        loop = asyncio.get_running_loop()
        for space in spaces:
            with contextlib.suppress(FileNotFoundError):
                inode = events.inode(space)
                if space not in self._watches or self._watches[space][0] != inode:
                    self._unwatch(space)
                    if self._proxy is not None:
                        self._proxy.shut(space)
                    watch = await asyncio.to_thread(events.Watch, space)
                    self._watches[space] = (inode, watch)
                    for each in watch.sockets:
                        loop.add_reader(each, self._happened, space, watch)
        for space, piece in self._applier.inner.items():
            for daemon in piece.daemons:
                self._watch_daemon(space, await asyncio.to_thread(daemon.pid))

    def _happened(self, space: str, watch: events.Watch) -> None:
        watch.drain()
        self._touched.add(space)
        self._news.set()

    def _unwatch(self, space: str) -> None:
        found = self._watches.pop(space, None)
        if found is not None:
            for each in found[1].sockets:
                asyncio.get_running_loop().remove_reader(each)
            found[1].close()

    def _watch_daemon(self, space: str, pid: int | None) -> None:
        known = self._daemons.get(space)
        if pid is None or (known is not None and known[0] == pid):
            return
        self._forget_daemon(space)
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._touched.add(space)
            self._news.set()
            return
        self._daemons[space] = (pid, handle)
        asyncio.get_running_loop().add_reader(handle, self._daemon_ended, space)

    def _daemon_ended(self, space: str) -> None:
        log.warning("plane.daemon_ended", space=space)
        self._forget_daemon(space)
        self._touched.add(space)
        self._news.set()

    def _forget_daemon(self, space: str) -> None:
        known = self._daemons.pop(space, None)
        if known is not None:
            asyncio.get_running_loop().remove_reader(known[1])
            os.close(known[1])
