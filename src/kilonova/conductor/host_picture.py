"""The scheduler's picture of the hosts, kept warm by reading what changed.

A refresh costs two statements whatever the number of hosts: the nodes whose
`changed` mark is newer than the last look, and the marks of everything else
(services that take no servers, aggregates' generations, builds under way, the
count of nodes). A slow full read in pieces makes up for what a mark may miss.
"""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Database, Tx
from kilonova.db.hosts import COMPUTE
from kilonova.db.tables import (
    aggregate_hosts,
    aggregate_metadata,
    aggregates,
    compute_nodes,
    instances,
    node_resources,
    operations,
    services,
)
from kilonova.db.tables.operations import OPEN
from kilonova.db.types import database_seconds
from kilonova.scheduler.picture import DISABLED, DOWN, Aggregate, Node, Picture
from kilonova.settings import ComputeSettings
from kilonova.world import World

OVERLAP = 5.0
"""Seconds by which each look goes back behind the one before: a transaction may commit after it made its mark."""

UNCLAIMED = 5.0
"""Seconds after which a host that was recommended, but is not claimed, is read again."""

FULL_READ = 120.0
"""Seconds between two full reads, while there are questions."""

PIECE = 500
"""Nodes read at once: their rows are turned into a picture on the event loop."""

BUSY_KINDS = (
    "boot", "boot_with_ports", "rebuild", "resize", "cold_migrate", "migrate", "live_migrate", "evacuate", "shelve",
    "unshelve", "rescue", "unrescue", "snapshot", "create_image", "backup",
)  # fmt: skip
"""Operations that keep a host's disks busy."""

_UNUSABLE, _NODES, _AGGREGATE, _BUSY = range(4)

_n = compute_nodes.c
_COLUMNS = (
    _n.id, _n.uuid, _n.service_id, _n.host, _n.hypervisor_hostname, _n.hypervisor_type, _n.hypervisor_version, _n.vcpus,
    _n.memory_mb, _n.local_gb, _n.vcpus_max, _n.memory_mb_max, _n.local_gb_max, _n.vcpus_used, _n.memory_mb_used,
    _n.local_gb_used, _n.running_vms, _n.failed_builds, _n.cpu_allocation_ratio, _n.ram_allocation_ratio,
    _n.disk_allocation_ratio, _n.disk_available_least, _n.cpu_info, _n.traits, _n.supported_instances, _n.metrics,
    _n.host_ip, _n.changed,
)  # fmt: skip
_SELECT = sa.select(
    *_COLUMNS,
    node_resources.c.resource_class,
    node_resources.c.max.label("resource_max"),
    node_resources.c.used.label("resource_used"),
).outerjoin_from(compute_nodes, node_resources, node_resources.c.node_id == _n.id)
_CHANGED = _SELECT.where(
    sa.or_(_n.changed >= sa.bindparam("since"), _n.id.in_(sa.bindparam("also", expanding=True, type_=sa.BigInteger())))
)
_PIECE = _SELECT.where(_n.id > sa.bindparam("after"), _n.id <= sa.bindparam("upto"))


def _marks(service_down_time: float) -> sa.CompoundSelect[Any]:
    s, o, i = services.c, operations.c, instances.c
    late = sa.or_(s.forced_down, s.last_seen <= database_seconds() - service_down_time)
    nothing = sa.literal("", sa.String())
    return sa.union_all(
        sa.select(
            sa.literal(_UNUSABLE).label("kind"), s.id.label("key"), sa.case((late, 1), else_=0).label("value"),
            nothing.label("name"),
        ).where(s.binary == COMPUTE, sa.or_(s.disabled, late)),
        sa.select(
            sa.literal(_NODES), sa.func.coalesce(sa.func.max(compute_nodes.c.id), 0), sa.func.count(), nothing
        ).select_from(compute_nodes),
        sa.select(sa.literal(_AGGREGATE), aggregates.c.id, aggregates.c.generation, nothing),
        sa.select(sa.literal(_BUSY), sa.literal(0), sa.func.count(), i.host)
        .join_from(operations, instances, i.uuid == o.server_uuid)
        .where(o.state.in_(OPEN), o.kind.in_(BUSY_KINDS), i.host.is_not(None))
        .group_by(i.host),
    )  # fmt: skip


def _node(row: Any) -> Node:
    return Node(
        id=row.id,
        uuid=row.uuid,
        service_id=row.service_id,
        host=row.host,
        node=row.hypervisor_hostname,
        hypervisor_type=row.hypervisor_type,
        hypervisor_version=row.hypervisor_version,
        vcpus=row.vcpus,
        memory_mb=row.memory_mb,
        local_gb=row.local_gb,
        vcpus_max=row.vcpus_max,
        memory_mb_max=row.memory_mb_max,
        disk_gb_max=row.local_gb_max,
        vcpus_used=row.vcpus_used,
        memory_mb_used=row.memory_mb_used,
        disk_gb_used=row.local_gb_used,
        running_vms=row.running_vms,
        failed_builds=row.failed_builds,
        vcpus_ratio=row.cpu_allocation_ratio,
        memory_ratio=row.ram_allocation_ratio,
        disk_ratio=row.disk_allocation_ratio,
        disk_available_least=row.disk_available_least,
        cpu_info=row.cpu_info,
        traits=frozenset(row.traits),
        supported=tuple((kind[0], kind[1], kind[2]) for kind in row.supported_instances or ()),
        metrics=row.metrics or {},
        host_ip=row.host_ip or "",
        resources={} if row.resource_class is None else {row.resource_class: (row.resource_max, row.resource_used)},
    )


def _nodes(rows: list[Any]) -> list[Node]:
    """One per node; a node with several resources comes in several rows."""
    found: dict[int, Node] = {}
    for row in rows:
        known = found.get(row.id)
        if known is None:
            found[row.id] = _node(row)
        else:
            assert isinstance(known.resources, dict)
            known.resources[row.resource_class] = (row.resource_max, row.resource_used)
    return list(found.values())


class HostPicture:
    def __init__(self, db: Database, world: World, settings: ComputeSettings) -> None:
        self.db = db
        self.world = world
        self.picture = Picture(default_zone=settings.default_availability_zone)
        self._marks = _marks(settings.service_down_time)
        self._since = 0.0
        """Up to where `changed` marks were seen, on the database's clock."""
        self._read_at: float | None = None
        self._full_at: float | None = None
        self._generations: dict[int, int] = {}
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
            if self._read_at is None or asked - self._read_at >= max_age:
                await self._refresh(0.0 if true else UNCLAIMED)
        return self.picture

    async def _refresh(self, unclaimed: float) -> None:
        now = self.world.monotonic()
        if self._full_at is None or now - self._full_at > FULL_READ:
            await self._read_all()
            self._full_at = now
        else:
            since = self._since - OVERLAP
            also = [node_id for node_id, when in self.picture.taken.items() if now - when >= unclaimed]
            query = _CHANGED, {"since": since, "also": also}

            async def look(tx: Tx) -> tuple[list[Any], list[Any]]:
                changed = list(await tx.execute(*query))
                return changed, list(await tx.execute(self._marks))

            changed, marks = await self.db.read(look)
            self._see(changed)
            await self._apply(marks)
            if next(row.value for row in marks if row.kind == _NODES) != len(self.picture):
                await self._read_all()
        self._read_at = now

    def _see(self, rows: list[Any]) -> None:
        self.picture.put(_nodes(rows))
        self._since = max([self._since, *(row.changed for row in rows)])

    async def _apply(self, marks: list[Any]) -> None:
        unusable = {row.key: DOWN if row.value else DISABLED for row in marks if row.kind == _UNUSABLE}
        self.picture.set_unusable(unusable)
        self.picture.set_io_ops({row.name: row.value for row in marks if row.kind == _BUSY})
        generations = {row.key: row.value for row in marks if row.kind == _AGGREGATE}
        if generations != self._generations:
            self.picture.set_aggregates(await self.db.read(read_aggregates))
            self._generations = generations

    async def _read_all(self) -> None:
        async def look(tx: Tx) -> list[Any]:
            return list(await tx.execute(self._marks))

        marks = await self.db.read(look)
        last = next(row.key for row in marks if row.kind == _NODES)
        seen: list[int] = []
        for after in range(0, last, PIECE):
            span = {"after": after, "upto": after + PIECE}

            async def piece(tx: Tx, span: dict[str, int] = span) -> list[Any]:
                return list(await tx.execute(_PIECE, span))

            rows = await self.db.read(piece)
            self._see(rows)
            seen += [row.id for row in rows]
        # Nodes that came meanwhile are beyond the last piece.
        self.picture.keep({*seen, *(node.id for node in self.picture.nodes if node.id > last)})
        await self._apply(marks)


async def read_aggregates(tx: Tx) -> list[Aggregate]:
    hosts: dict[int, set[str]] = {}
    for row in await tx.execute(sa.select(aggregate_hosts)):
        hosts.setdefault(row.aggregate_id, set()).add(row.host)
    values: dict[int, dict[str, str]] = {}
    for row in await tx.execute(sa.select(aggregate_metadata)):
        values.setdefault(row.aggregate_id, {})[row.key] = row.value
    return [
        Aggregate(id=row.id, name=row.name, hosts=frozenset(hosts.get(row.id, ())), metadata=values.get(row.id, {}))
        for row in await tx.execute(sa.select(aggregates.c.id, aggregates.c.name))
    ]
