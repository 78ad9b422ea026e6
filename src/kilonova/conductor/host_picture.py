"""The scheduler's picture of the hosts, kept warm by reading what changed.

A look costs one statement whatever the number of hosts: the ids of nodes whose
`changed` mark is newer than the look before, and the marks of everything else
(services that take no servers, aggregates' generations, builds under way, the
count of nodes). The rows of nodes that changed cost another one for each piece
of them. A slow full read makes up for what a mark may miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Database, Tx
from kilonova.db.hosts import COMPUTE, hearing_clock, slack_of
from kilonova.db.scheduling import SELECT, nodes_of, read_aggregates, read_generations
from kilonova.db.tables import aggregates, compute_nodes, instances, operations, services
from kilonova.db.tables.operations import OPEN
from kilonova.db.types import database_seconds
from kilonova.scheduler.picture import DISABLED, DOWN, Picture
from kilonova.settings import ComputeSettings
from kilonova.world import World

OVERLAP = 5.0
"""Seconds by which each look goes back behind the one before: a transaction may commit after it made its mark."""

UNCLAIMED = 5.0
"""Seconds after which a host that was recommended, but is not claimed, is read again."""

FULL_READ = 120.0
"""Seconds between two full reads, while there are questions."""

PIECE = 200
"""Nodes read at once: their rows are turned into a picture on the event loop, some 50 µs each."""

_NEVER = 1e12

BUSY_KINDS = (
    "boot", "boot_with_ports", "rebuild", "resize", "cold_migrate", "migrate", "live_migrate", "evacuate", "shelve",
    "unshelve", "rescue", "unrescue", "snapshot", "create_image", "backup",
)  # fmt: skip
"""Operations that keep a host's disks busy."""

_NOW, _CHANGED, _UNUSABLE, _NODES, _AGGREGATE, _BUSY = range(6)

_IDS = sa.select(compute_nodes.c.id).order_by(compute_nodes.c.id)
_BY_ID = SELECT.where(compute_nodes.c.id.in_(sa.bindparam("ids", expanding=True, type_=sa.BigInteger())))


def _marks() -> sa.CompoundSelect[Any]:
    s, o, i = services.c, operations.c, instances.c
    clock = hearing_clock(sa.bindparam("slack", type_=sa.Double()))
    late = sa.or_(s.forced_down, s.last_seen <= clock - sa.bindparam("silence", type_=sa.Double()))
    nothing = sa.literal("", sa.String())
    return sa.union_all(
        sa.select(
            sa.literal(_NOW).label("kind"), sa.literal(0).label("key"), database_seconds().label("value"),
            nothing.label("name"),
        ),
        sa.select(sa.literal(_CHANGED), compute_nodes.c.id, sa.literal(0), nothing).where(
            compute_nodes.c.changed >= sa.bindparam("since", type_=sa.Double())
        ),
        sa.select(sa.literal(_UNUSABLE), s.id, sa.case((late, 1), else_=0), nothing).where(
            s.binary == COMPUTE, sa.or_(s.disabled, late)
        ),
        sa.select(sa.literal(_NODES), sa.literal(0), sa.func.count(), nothing).select_from(compute_nodes),
        sa.select(sa.literal(_AGGREGATE), aggregates.c.id, aggregates.c.generation, nothing),
        sa.select(sa.literal(_BUSY), sa.literal(0), sa.func.count(), i.host)
        .join_from(operations, instances, i.uuid == o.server_uuid)
        .where(o.state.in_(OPEN), o.kind.in_(BUSY_KINDS), i.host.is_not(None))
        .group_by(i.host),
    )  # fmt: skip


_MARKS = _marks()


class HostPicture:
    def __init__(
        self,
        db: Database,
        world: World,
        settings: ComputeSettings,
        missed: Callable[[float], float] = lambda window: 0.0,
    ) -> None:
        """`missed`: see `Bus.missed`."""
        self.db = db
        self.world = world
        self.picture = Picture(default_zone=settings.default_availability_zone)
        self._down_time = settings.service_down_time
        self._slack = slack_of(settings.report_interval)
        self._missed = missed
        self._since = 0.0
        """When the look before was, on the database's clock."""
        self._read_at: float | None = None
        self._full_at: float | None = None
        self._generations: dict[int, int] | None = None
        """Of the aggregates as they were read; None: they are to be read anew."""
        self._lock = asyncio.Lock()

    @property
    def age(self) -> float:
        """Seconds since the last look; infinite before the first."""
        return float("inf") if self._read_at is None else self.world.monotonic() - self._read_at

    async def current(self, max_age: float, *, true: bool = False) -> Picture:
        """The picture, not older than that many seconds.

        `true`: as the database has it, without what was recommended and may not be claimed yet: for whoever is
        about to say that there is no host.
        """
        asked = self.world.monotonic()
        async with self._lock:
            # A look that another has waited for may be younger than this question, and deduct what it was answered.
            if self._read_at is None or asked - self._read_at >= max_age or (true and self.picture.taken):
                await self._refresh(0.0 if true else UNCLAIMED)
        return self.picture

    async def _refresh(self, unclaimed: float) -> None:
        now = self.world.monotonic()
        full = self._full_at is None or now - self._full_at > FULL_READ

        async def look(tx: Tx) -> list[Any]:
            # In a full read every row comes anyway.
            since = _NEVER if full else self._since - OVERLAP
            silence = self._down_time + self._missed(self._down_time)
            return list(await tx.execute(_MARKS, {"since": since, "silence": silence, "slack": self._slack}))

        marks = await self.db.read(look)
        if not full:
            unsure = [node_id for node_id, when in self.picture.taken.items() if now - when >= unclaimed]
            await self._read(sorted({*unsure, *(row.key for row in marks if row.kind == _CHANGED)}))
        if full or next(row.value for row in marks if row.kind == _NODES) != len(self.picture):
            await self._read_all()
            self._full_at = now
        await self._apply(marks)
        self._since = next(row.value for row in marks if row.kind == _NOW)
        self._read_at = now

    async def _read(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), PIECE):
            query = _BY_ID, {"ids": list(ids[start : start + PIECE])}

            async def piece(tx: Tx, query: Any = query) -> list[Any]:
                return list(await tx.execute(*query))

            self.picture.put(nodes_of(await self.db.read(piece)))

    async def _read_all(self) -> None:
        async def look(tx: Tx) -> list[int]:
            return [row.id for row in await tx.execute(_IDS)]

        ids = await self.db.read(look)
        await self._read(ids)
        self.picture.keep(ids)
        # A host that left and came back counts its changes from the start.
        self._generations = None

    async def _apply(self, marks: list[Any]) -> None:
        unusable = {row.key: DOWN if row.value else DISABLED for row in marks if row.kind == _UNUSABLE}
        self.picture.set_unusable(unusable)
        self.picture.set_io_ops({row.name: row.value for row in marks if row.kind == _BUSY})
        generations = {row.key: row.value for row in marks if row.kind == _AGGREGATE}
        if generations != self._generations:
            of_hosts = await self.db.read(read_generations)
            self.picture.set_aggregates(await self.db.read(read_aggregates), of_hosts)
            self._generations = generations
