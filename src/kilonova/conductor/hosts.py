"""What hosts and roles report: heartbeats, inventories; and whether a host is up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import sqlalchemy as sa
import structlog

from kilonova.bus.messages import Heartbeat, Heartbeats, HostReport, Unchanged
from kilonova.conductor import unchanged
from kilonova.conductor.nodes import change_node, ensure_node, put_right
from kilonova.conductor.pace import PACE, Pace
from kilonova.db.engine import Database, Tx
from kilonova.db.hosts import COMPUTE, CONDUCTOR, forgive_silence, hearing_clock, slack_of
from kilonova.db.tables import services
from kilonova.db.types import database_seconds
from kilonova.reconcile.host_boot import start_guests
from kilonova.settings import ComputeSettings
from kilonova.world import World

log = structlog.get_logger()

FLUSH = 1.0
"""Seconds over which heartbeats are collected into one statement."""

CHUNK = 5000
"""Ids in one statement."""

RECALL = 5.0
"""Seconds over which hosts that say nothing new are collected, to be looked at together."""

RECALLED = 500
"""Of them in one statement."""


async def _nobody(host: str) -> None:
    return


class Hosts:
    def __init__(
        self,
        db: Database,
        world: World,
        settings: ComputeSettings,
        pace: Pace = PACE,
        missed: Callable[[float], float] = lambda window: 0.0,
        ask: Callable[[str], Awaitable[None]] = _nobody,
    ) -> None:
        """`missed`: see `Bus.missed`. `ask`: has a host report anew."""
        self.db = db
        self.world = world
        self.settings = settings
        self._remember = pace.host_state
        self._missed = missed
        self._ask = ask
        self._slack = slack_of(settings.report_interval)
        self._heard_at: float | None = None
        """When a conductor's heartbeat was last stored here."""
        self._beats: set[tuple[str, str]] = set()
        self._unchanged: dict[str, Unchanged] = {}
        self._recalled_at = -RECALL
        self._ids: dict[tuple[str, str], int] = {}
        self._up: dict[str, tuple[float, bool]] = {}
        self._news = asyncio.Event()
        """A role that is not in the list of services yet: it is not kept waiting."""
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._flush_loop())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            await self._flush()

    # -- liveness
    async def is_up(self, host: str) -> bool:
        """Heard of within `service_down_time`, and not forced down.

        While nobody can be heard, and for some time after, silence says nothing.
        """
        now = self.world.monotonic()
        known = self._up.get(host)
        if known is not None and now - known[0] < self._remember:
            return known[1]
        limit = self.settings.service_down_time
        limit += self._missed(limit)
        clock = hearing_clock(self._slack)

        async def work(tx: Tx) -> bool:
            c = services.c
            query = sa.select(sa.and_(sa.not_(c.forced_down), c.last_seen > clock - limit).label("up")).where(
                c.host == host, c.binary == COMPUTE
            )
            row = (await tx.execute(query)).first()
            return bool(row.up) if row else False

        up = await self.db.read(work)
        self._up[host] = (now, up)
        return up

    # -- reports
    def on_heartbeat(self, beat: Heartbeat) -> None:
        key = (beat.host, beat.binary)
        self._beats.add(key)
        if beat.unchanged is not None:
            self._unchanged[beat.host] = beat.unchanged
        if key not in self._ids and beat.binary != COMPUTE:
            self._news.set()

    def on_heartbeats(self, beats: Heartbeats) -> None:
        self._beats.update((host, beats.binary) for host in beats.hosts)
        self._unchanged.update(beats.unchanged)

    async def on_report(self, report: HostReport) -> list[int]:
        """Make or change the rows of a host, so that it counts from now on; returns the operations started.

        When its machine was booted, guests that ran are started again where configured. That stands in the
        transaction that remembers the boot, so it happens once.
        """
        self._up.pop(report.host, None)

        async def work(tx: Tx) -> list[int]:
            service_id = await self._ensure_service(tx, report.host, COMPUTE, report.incarnation)
            allocation = report.allocation or self.settings.allocation
            await ensure_node(tx, self.world, service_id, report, allocation)
            c = services.c
            mark = unchanged.mark_of(report, self.settings.allocation)
            await tx.execute(sa.update(services).where(c.id == service_id, c.report != mark).values(report=mark))
            booted = await tx.execute(
                sa.update(services)
                .where(c.id == service_id, c.boot_id != report.boot_id)
                .values(boot_id=report.boot_id)
            )
            if booted.rowcount and self.settings.resume_guests_state_on_host_boot:
                return await start_guests(tx, self.world, report.host)
            return []

        return await self.db.write(work)

    async def _flush_loop(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), FLUSH)
            self._news.clear()
            try:
                await self._flush()
                if self._unchanged and self.world.monotonic() - self._recalled_at >= RECALL:
                    await self._recall()
            except Exception as error:
                log.warning("heartbeats not stored", error=str(error))

    async def _flush(self) -> None:
        if not self._beats:
            return
        beats, self._beats = self._beats, set()
        unknown = [key for key in beats if key not in self._ids]
        heard = any(binary == CONDUCTOR for _, binary in beats)
        now = self.world.monotonic()
        anew = heard and (self._heard_at is None or now - self._heard_at > self._slack)

        async def work(tx: Tx) -> None:
            if anew:
                await forgive_silence(tx, self.settings.service_down_time, self._slack)
            if unknown:
                await self._learn(tx, unknown)
            ids = [self._ids[key] for key in beats if key in self._ids]
            for start in range(0, len(ids), CHUNK):
                await tx.execute(
                    sa.update(services)
                    .where(services.c.id.in_(ids[start : start + CHUNK]))
                    .values(last_seen=database_seconds())
                )

        try:
            await self.db.write(work)
        except Exception:
            self._beats |= beats
            raise
        if heard:
            self._heard_at = now

    async def _recall(self) -> None:
        """Look at the hosts that said that nothing is new with them. What fails is made good at their next time."""
        said, self._unchanged = self._unchanged, {}
        self._recalled_at = self.world.monotonic()
        hosts = sorted(said)
        for start in range(0, len(hosts), RECALLED):
            await self._look_at({host: said[host] for host in hosts[start : start + RECALLED]})

    async def _look_at(self, said: dict[str, Unchanged]) -> None:
        found = await self.db.read(lambda tx: unchanged.look(tx, said, self.settings.allocation))
        self._ids.update({(host, COMPUTE): row_id for host, row_id in found.services.items()})
        for host in found.unknown:
            await self._ask(host)

        async def change(tx: Tx) -> None:
            for node in sorted(found.doubtful):
                await put_right(tx, self.world, *node)
            for node_id, values in sorted(found.moved.items()):
                await change_node(tx, self.world, node_id, values)

        if found.doubtful or found.moved:
            await self.db.write(change)

    async def _learn(self, tx: Tx, unknown: list[tuple[str, str]]) -> None:
        rows = await tx.execute(
            sa.select(services.c.id, services.c.host, services.c.binary).where(
                services.c.host.in_(sorted({host for host, _ in unknown}))
            )
        )
        self._ids.update({(row.host, row.binary): row.id for row in rows})
        for host, binary in unknown:
            # A compute service has a node too: it is made by the host's report, not by its heartbeat.
            if (host, binary) not in self._ids and binary != COMPUTE:
                await self._ensure_service(tx, host, binary, "")

    async def _ensure_service(self, tx: Tx, host: str, binary: str, incarnation: str) -> int:
        c = services.c
        row = (await tx.execute(sa.select(c.id).where(c.host == host, c.binary == binary))).first()
        if row is not None:
            service_id = int(row.id)
            await tx.execute(
                sa.update(services)
                .where(c.id == service_id)
                .values(incarnation=incarnation, last_seen=database_seconds())
            )
        else:
            result = await tx.execute(
                sa.insert(services).values(
                    uuid=self.world.uuid(),
                    host=host,
                    binary=binary,
                    incarnation=incarnation,
                    last_seen=database_seconds(),
                    created_at=self.world.now(),
                )
            )
            assert result.inserted_primary_key is not None
            service_id = int(result.inserted_primary_key[0])
        self._ids[host, binary] = service_id
        return service_id
