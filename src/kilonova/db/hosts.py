"""Rows of services and compute nodes, with whether their host is up by the database's clock."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import compute_nodes, instances, node_resources, pci_devices, services, tombstones
from kilonova.db.types import database_seconds

COMPUTE = "nova-compute"


Identity = sa.ColumnElement[bool]
"""Which row: made by the functions below, e.g. `node_uuid`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """`availability_zone` is None for the default one; `last_seen` is the database's clock, seconds, 0 for never."""

    id: int
    uuid: str
    host: str
    binary: str
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    availability_zone: str | None
    last_seen: float
    created_at: dt.datetime
    up: bool

    @property
    def seen_at(self) -> dt.datetime | None:
        """UTC, naive."""
        if not self.last_seen:
            return None
        return dt.datetime.fromtimestamp(self.last_seen, dt.UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervisor:
    """A compute node with its service. Memory in MiB, disk in GiB."""

    id: int
    uuid: str
    hypervisor_hostname: str
    hypervisor_type: str
    hypervisor_version: int
    host: str
    host_ip: str | None
    vcpus: int
    memory_mb: int
    local_gb: int
    vcpus_used: int
    memory_mb_used: int
    local_gb_used: int
    running_vms: int
    busy_vms: int
    """Servers on the host with an operation under way."""
    disk_available_least: int | None
    cpu_info: dict[str, Any]
    uptime: str | None
    service_id: int
    service_uuid: str
    disabled: bool
    disabled_reason: str | None
    up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Sums over the nodes of enabled hosts."""

    count: int
    vcpus: int
    memory_mb: int
    local_gb: int
    vcpus_used: int
    memory_mb_used: int
    local_gb_used: int
    running_vms: int
    busy_vms: int
    disk_available_least: int


CONDUCTOR = "nova-conductor"


def newest_hearing() -> sa.ScalarSelect[Any]:
    """When a conductor last heard one, itself or another, over the bus: the proof that somebody can be heard."""
    return sa.select(sa.func.max(services.c.last_seen)).where(services.c.binary == CONDUCTOR).scalar_subquery()


def hearing_clock(slack: float | sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    """The database's clock, but for times at which nobody was heard for more than `slack` seconds: it stands then."""
    latest = newest_hearing() + slack
    return sa.case((latest < database_seconds(), latest), else_=database_seconds())


def slack_of(report_interval: float) -> float:
    """Seconds without any heartbeat that are nothing unusual: two may be lost or late."""
    return 2.0 * report_interval + 2.0


async def forgive_silence(tx: Tx, service_down_time: float, slack: float) -> None:
    """Nobody was heard for a while, and now somebody is: the time in between counts for nobody's silence.

    For the transaction that stores the first heartbeat of a conductor. Done by several at once it counts once.
    """
    query = sa.select(newest_hearing().label("heard"), database_seconds().label("now"))
    row = (await tx.execute(query)).one()
    if row.heard is None or row.now - row.heard <= slack:
        return
    c = services.c
    await tx.execute(
        sa.update(services)
        .where(c.last_seen > row.heard - service_down_time, c.last_seen <= row.heard)
        .values(last_seen=c.last_seen + (row.now - row.heard))
    )


def _up(service_down_time: float) -> sa.ColumnElement[bool]:
    c = services.c
    return sa.and_(sa.not_(c.forced_down), c.last_seen > database_seconds() - service_down_time)


def _service_columns(service_down_time: float) -> list[sa.ColumnElement[Any]]:
    c = services.c
    return [
        c.id, c.uuid, c.host, c.binary, c.disabled, c.disabled_reason, c.forced_down, c.availability_zone, c.last_seen,
        c.created_at, _up(service_down_time).label("up"),
    ]  # fmt: skip


def _service(row: sa.Row[Any]) -> Service:
    fields = row._asdict()
    return Service(**(fields | {"up": bool(fields["up"]), "last_seen": float(fields["last_seen"])}))


async def find_services(
    tx: Tx, *, service_down_time: float, host: str | None = None, binary: str | None = None
) -> list[Service]:
    query = sa.select(*_service_columns(service_down_time)).order_by(services.c.id)
    if host:
        query = query.where(services.c.host == host)
    if binary:
        query = query.where(services.c.binary == binary)
    return [_service(row) for row in await tx.execute(query)]


async def get_service(tx: Tx, identity: sa.ColumnElement[bool], *, service_down_time: float) -> Service | None:
    row = (await tx.execute(sa.select(*_service_columns(service_down_time)).where(identity))).first()
    return _service(row) if row else None


def service_uuid(uuid: str) -> sa.ColumnElement[bool]:
    return services.c.uuid == uuid


def service_row(row_id: int) -> sa.ColumnElement[bool]:
    return services.c.id == row_id


def service_of(host: str, binary: str) -> sa.ColumnElement[bool]:
    return sa.and_(services.c.host == host, services.c.binary == binary)


async def update_service(tx: Tx, row_id: int, **values: Any) -> bool:
    result = await tx.execute(sa.update(services).where(services.c.id == row_id).values(**values))
    return bool(result.rowcount)


async def delete_service(tx: Tx, service: Service) -> None:
    """With its compute nodes, and what was still to be cleaned up on its host."""
    await tx.execute(sa.delete(services).where(services.c.id == service.id))
    if service.binary == COMPUTE:
        mine = sa.select(compute_nodes.c.id).where(compute_nodes.c.host == service.host)
        for table in (node_resources, pci_devices):
            await tx.execute(sa.delete(table).where(table.c.node_id.in_(mine)))
        await tx.execute(sa.delete(compute_nodes).where(compute_nodes.c.host == service.host))
        await tx.execute(sa.delete(tombstones).where(tombstones.c.host == service.host))


async def count_servers(tx: Tx, *hosts: str) -> int:
    """Servers on these hosts."""
    c = instances.c
    query = sa.select(sa.func.count()).select_from(instances).where(c.host.in_(hosts), c.deleted == 0)
    return int((await tx.execute(query)).scalar_one())


async def servers_by_host(tx: Tx, hosts: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """Row id and uuid of the servers on each of the hosts."""
    c = instances.c
    query = sa.select(c.host, c.id, c.uuid).where(c.host.in_(hosts), c.deleted == 0).order_by(c.id)
    found: dict[str, list[tuple[int, str]]] = {}
    for host, row_id, uuid in await tx.execute(query):
        found.setdefault(host, []).append((row_id, uuid))
    return found


_NODE_COLUMNS = (
    "id", "uuid", "hypervisor_hostname", "hypervisor_type", "hypervisor_version", "host", "host_ip", "vcpus",
    "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "running_vms", "disk_available_least",
    "cpu_info", "uptime",
)  # fmt: skip


def _busy() -> sa.ColumnElement[int]:
    c = instances.c
    return (
        sa.select(sa.func.count())
        .select_from(instances)
        .where(c.host == compute_nodes.c.host, c.deleted == 0, c.operation_id.is_not(None))
        .scalar_subquery()
    )


@functools.lru_cache(maxsize=8)
def _hypervisors(service_down_time: float) -> sa.Select[Any]:
    # A node whose service was deleted is not shown.
    c = services.c
    return sa.select(
        *(compute_nodes.c[name] for name in _NODE_COLUMNS),
        _busy().label("busy_vms"),
        c.id.label("service_id"),
        c.uuid.label("service_uuid"),
        c.disabled,
        c.disabled_reason,
        _up(service_down_time).label("up"),
    ).join_from(compute_nodes, services, sa.and_(c.host == compute_nodes.c.host, c.binary == COMPUTE))


@functools.lru_cache(maxsize=8)
def _first_page(service_down_time: float) -> sa.Select[Any]:
    # Kept, since building it takes longer than running it.
    page = _hypervisors(service_down_time).order_by(compute_nodes.c.id)
    return page.limit(sa.bindparam("page_length", type_=sa.Integer))


def _hypervisor(row: sa.Row[Any]) -> Hypervisor:
    fields = row._asdict()
    return Hypervisor(**(fields | {"up": bool(fields["up"])}))


class MarkerNotFound(Exception):
    pass


def node_uuid(uuid: str) -> sa.ColumnElement[bool]:
    return compute_nodes.c.uuid == uuid


def node_row(row_id: int) -> sa.ColumnElement[bool]:
    return compute_nodes.c.id == row_id


async def find_hypervisors(
    tx: Tx,
    *,
    service_down_time: float,
    limit: int | None = None,
    after: sa.ColumnElement[bool] | None = None,
    pattern: str | None = None,
) -> list[Hypervisor]:
    """In the order of their ids, after the one that `after` names; `pattern` is a part of the host name.

    Raises MarkerNotFound.
    """
    if limit is not None and after is None and pattern is None:
        rows = await tx.execute(_first_page(service_down_time), {"page_length": limit})
        return [_hypervisor(row) for row in rows]
    query = _hypervisors(service_down_time).order_by(compute_nodes.c.id)
    if pattern is not None:
        query = query.where(compute_nodes.c.hypervisor_hostname.contains(pattern, autoescape=True))
    if after is not None:
        marker = (await tx.execute(sa.select(compute_nodes.c.id).where(after))).scalar()
        if marker is None:
            raise MarkerNotFound
        query = query.where(compute_nodes.c.id > marker)
    if limit is not None:
        query = query.limit(limit)
    return [_hypervisor(row) for row in await tx.execute(query)]


async def get_hypervisor(tx: Tx, identity: sa.ColumnElement[bool], *, service_down_time: float) -> Hypervisor | None:
    row = (await tx.execute(_hypervisors(service_down_time).where(identity))).first()
    return _hypervisor(row) if row else None


async def statistics(tx: Tx) -> Statistics:
    summed = ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "running_vms",
              "disk_available_least")  # fmt: skip
    inner = (
        sa.select(*(compute_nodes.c[name] for name in summed), _busy().label("busy_vms"))
        .join_from(
            compute_nodes, services, sa.and_(services.c.host == compute_nodes.c.host, services.c.binary == COMPUTE)
        )
        .where(sa.not_(services.c.disabled))
        .subquery()
    )
    query = sa.select(
        sa.func.count().label("count"),
        *(sa.func.coalesce(sa.func.sum(inner.c[name]), 0).label(name) for name in (*summed, "busy_vms")),
    ).select_from(inner)
    row = (await tx.execute(query)).one()
    return Statistics(**{name: int(value) for name, value in row._asdict().items()})


class HostTotals(NamedTuple):
    vcpus: int
    memory_mb: int
    disk_gb: int


async def first_of_host(tx: Tx, host: str, *, service_down_time: float) -> Hypervisor | None:
    """The host's first node."""
    query = _hypervisors(service_down_time).where(compute_nodes.c.host == host).order_by(compute_nodes.c.id).limit(1)
    row = (await tx.execute(query)).first()
    return _hypervisor(row) if row else None


async def used_by_project(tx: Tx, host: str) -> dict[str, HostTotals]:
    """What the servers on the host have by their flavors, by project."""
    c = instances.c
    query = sa.select(
        c.project_id, sa.func.sum(c.vcpus), sa.func.sum(c.memory_mb), sa.func.sum(c.root_gb + c.ephemeral_gb)
    ).where(c.host == host, c.deleted == 0)
    rows = await tx.execute(query.group_by(c.project_id).order_by(c.project_id))
    return {row[0]: HostTotals(int(row[1]), int(row[2]), int(row[3])) for row in rows}
