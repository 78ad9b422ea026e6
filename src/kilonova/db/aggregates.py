"""Rows of aggregates, with their hosts and metadata; and the availability zones that follow from them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.hosts import COMPUTE
from kilonova.db.tables import aggregate_hosts, aggregate_metadata, aggregates, compute_nodes, services

ZONE = "availability_zone"
"""The key that makes an aggregate's hosts an availability zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """`hosts` are sorted. Times are UTC."""

    id: int
    uuid: str
    name: str
    created_at: dt.datetime
    updated_at: dt.datetime | None
    hosts: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def availability_zone(self) -> str | None:
        return self.metadata.get(ZONE)


_SHOWN = [column for column in aggregates.c if column is not aggregates.c.generation]
_HOSTS = sa.select(aggregate_hosts).order_by(aggregate_hosts.c.aggregate_id, aggregate_hosts.c.host)
_METADATA = sa.select(aggregate_metadata).order_by(aggregate_metadata.c.aggregate_id, aggregate_metadata.c.key)


async def find(tx: Tx, *condition: sa.ColumnElement[bool]) -> list[Aggregate]:
    """Aggregates where `condition` holds, or all, in the order of their ids: three statements."""
    rows = list(await tx.execute(sa.select(*_SHOWN).where(*condition).order_by(aggregates.c.id)))
    found = {row.id: Aggregate(**row._asdict()) for row in rows}
    if not found:
        return []
    hosts, values = _HOSTS, _METADATA
    if condition:
        hosts = hosts.where(aggregate_hosts.c.aggregate_id.in_(found))
        values = values.where(aggregate_metadata.c.aggregate_id.in_(found))
    for row in await tx.execute(hosts):
        if row.aggregate_id in found:
            found[row.aggregate_id].hosts.append(row.host)
    for row in await tx.execute(values):
        if row.aggregate_id in found:
            found[row.aggregate_id].metadata[row.key] = row.value
    return list(found.values())


async def get(tx: Tx, aggregate_id: int) -> Aggregate | None:
    found = await find(tx, aggregates.c.id == aggregate_id)
    return found[0] if found else None


async def get_by_uuid(tx: Tx, uuid: str) -> Aggregate | None:
    found = await find(tx, aggregates.c.uuid == uuid)
    return found[0] if found else None


async def of_host(tx: Tx, host: str) -> list[Aggregate]:
    """Those that the host is in."""
    members = sa.select(aggregate_hosts.c.aggregate_id).where(aggregate_hosts.c.host == host)
    return await find(tx, aggregates.c.id.in_(members))


async def lock(tx: Tx, aggregate_id: int) -> bool:
    """Keep others from changing the aggregate, its hosts or its metadata until the transaction ends."""
    query = sa.select(aggregates.c.id).where(aggregates.c.id == aggregate_id).with_for_update()
    return (await tx.execute(query)).first() is not None


async def is_named(tx: Tx, name: str) -> bool:
    return (await tx.execute(sa.select(aggregates.c.id).where(aggregates.c.name == name))).first() is not None


async def insert(tx: Tx, uuid: str, name: str, metadata: Mapping[str, str], now: dt.datetime) -> Aggregate:
    values = {"uuid": uuid, "name": name, "created_at": now}
    key = (await tx.execute(sa.insert(aggregates).values(values))).inserted_primary_key
    assert key is not None
    for name_, value in metadata.items():
        await tx.execute(sa.insert(aggregate_metadata).values(aggregate_id=key[0], key=name_, value=value))
    return Aggregate(id=int(key[0]), uuid=uuid, name=name, created_at=now, updated_at=None, metadata=dict(metadata))


async def update(tx: Tx, aggregate_id: int, **values: Any) -> None:
    await _changed(tx, aggregates.c.id == aggregate_id, **values)


async def _changed(tx: Tx, which: sa.ColumnElement[bool], **values: Any) -> None:
    """Schedulers look at generations to learn of changes."""
    await tx.execute(sa.update(aggregates).where(which).values(generation=aggregates.c.generation + 1, **values))


async def delete(tx: Tx, aggregate_id: int) -> None:
    for table, column in (
        (aggregate_metadata, aggregate_metadata.c.aggregate_id),
        (aggregate_hosts, aggregate_hosts.c.aggregate_id),
        (aggregates, aggregates.c.id),
    ):
        await tx.execute(sa.delete(table).where(column == aggregate_id))


async def add_host(tx: Tx, aggregate_id: int, host: str) -> None:
    await tx.execute(sa.insert(aggregate_hosts).values(aggregate_id=aggregate_id, host=host))
    await _changed(tx, aggregates.c.id == aggregate_id)


async def remove_host(tx: Tx, aggregate_id: int, host: str) -> bool:
    """False when it was not there."""
    c = aggregate_hosts.c
    result = await tx.execute(sa.delete(aggregate_hosts).where(c.aggregate_id == aggregate_id, c.host == host))
    await _changed(tx, aggregates.c.id == aggregate_id)
    return bool(result.rowcount)


async def remove_host_everywhere(tx: Tx, host: str) -> None:
    c = aggregate_hosts.c
    await _changed(tx, aggregates.c.id.in_(sa.select(c.aggregate_id).where(c.host == host)))
    await tx.execute(sa.delete(aggregate_hosts).where(c.host == host))


async def set_metadata(tx: Tx, aggregate_id: int, changes: Mapping[str, str | None]) -> None:
    """Set keys, and remove those whose value is None."""
    c = aggregate_metadata.c
    await tx.execute(sa.delete(aggregate_metadata).where(c.aggregate_id == aggregate_id, c.key.in_(list(changes))))
    await _changed(tx, aggregates.c.id == aggregate_id)
    rows = [
        {"aggregate_id": aggregate_id, "key": key, "value": value}
        for key, value in changes.items()
        if value is not None
    ]
    if rows:
        await tx.execute(sa.insert(aggregate_metadata), rows)


async def hold_hosts(tx: Tx, hosts: Sequence[str]) -> list[str]:
    """Hold these hosts' nodes and services until the transaction ends, so that nothing is claimed on them meanwhile.

    Returns those that have a compute service. Claims that were decided on before see that something has changed.
    """
    nodes = compute_nodes.c
    values = {"generation": nodes.generation + 1, "aggregates_generation": nodes.aggregates_generation + 1}
    await tx.execute(sa.update(compute_nodes).where(nodes.host.in_(hosts)).values(**values))
    c = services.c
    query = sa.select(c.host).where(c.host.in_(hosts), c.binary == COMPUTE).order_by(c.id).with_for_update()
    return [row.host for row in await tx.execute(query)]


async def zones(tx: Tx, hosts: Sequence[str], *, without: int | None = None) -> set[str]:
    """The zones that these hosts are in by other aggregates than `without`."""
    hosts_of, values = aggregate_hosts.c, aggregate_metadata.c
    query = (
        sa.select(values.value)
        .distinct()
        .join_from(aggregate_hosts, aggregate_metadata, values.aggregate_id == hosts_of.aggregate_id)
        .where(hosts_of.host.in_(hosts), values.key == ZONE)
    )
    if without is not None:
        query = query.where(hosts_of.aggregate_id != without)
    return {row.value for row in await tx.execute(query)}


async def refresh_zones(tx: Tx, hosts: Sequence[str]) -> None:
    """Write into the services of these hosts the zone that their aggregates make them; the caller holds them."""
    if not hosts:
        return
    zone = (
        sa.select(sa.func.min(aggregate_metadata.c.value))
        .join_from(
            aggregate_hosts, aggregate_metadata, aggregate_metadata.c.aggregate_id == aggregate_hosts.c.aggregate_id
        )
        .where(aggregate_hosts.c.host == services.c.host, aggregate_metadata.c.key == ZONE)
        .scalar_subquery()
    )
    c = services.c
    await tx.execute(sa.update(services).where(c.host.in_(hosts), c.binary == COMPUTE).values(availability_zone=zone))
