"""Rows of migrations: servers that moved, or move, between hosts or flavors."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import migrations

LIVE = "live-migration"
IN_PROGRESS = ("queued", "preparing", "running", "post-migrating")
"""Statuses of a live migration that goes on."""


@dataclass(frozen=True, slots=True)
class Migration:
    """The fields are the columns of `migrations`, in their order. Times are UTC, memory and disk in bytes."""

    id: int
    uuid: str
    instance_uuid: str
    project_id: str
    user_id: str
    migration_type: str
    status: str
    source_compute: str | None
    source_node: str | None
    dest_compute: str | None
    dest_node: str | None
    dest_host: str | None
    old_instance_type_id: int | None
    new_instance_type_id: int | None
    hidden: bool
    memory_total: int | None
    memory_processed: int | None
    memory_remaining: int | None
    disk_total: int | None
    disk_processed: int | None
    disk_remaining: int | None
    created_at: dt.datetime
    updated_at: dt.datetime | None


class MarkerNotFound(Exception):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`host`: where from or where to. `exact`: by the names of columns."""

    host: str | None = None
    exact: dict[str, str] = field(default_factory=dict)
    hidden: bool | None = None
    changed_since: dt.datetime | None = None
    changed_before: dt.datetime | None = None


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    c = migrations.c
    found = [c[name] == value for name, value in wanted.exact.items()]
    if wanted.host is not None:
        found.append(sa.or_(c.source_compute == wanted.host, c.dest_compute == wanted.host))
    if wanted.hidden is not None:
        found.append(c.hidden.is_(wanted.hidden))
    changed = sa.func.coalesce(c.updated_at, c.created_at)
    if wanted.changed_since is not None:
        found.append(changed >= wanted.changed_since)
    if wanted.changed_before is not None:
        found.append(changed <= wanted.changed_before)
    return found


async def find(tx: Tx, wanted: Filter, *, limit: int | None = None, marker: str | None = None) -> list[Migration]:
    """Newest first, after the one of the UUID `marker`; without a limit all, oldest first. Raises MarkerNotFound."""
    c = migrations.c
    query = sa.select(migrations).where(*_conditions(wanted))
    if limit is None:
        return [Migration(*row) for row in await tx.execute(query.order_by(c.id))]
    if marker is not None:
        last = (await tx.execute(sa.select(c.created_at, c.id).where(c.uuid == marker))).first()
        if last is None:
            raise MarkerNotFound
        older = sa.and_(c.created_at == last.created_at, c.id < last.id)
        query = query.where(sa.or_(c.created_at < last.created_at, older))
    rows = await tx.execute(query.order_by(c.created_at.desc(), c.id.desc()).limit(limit))
    return [Migration(*row) for row in rows]


async def in_progress(tx: Tx, server_uuid: str) -> list[Migration]:
    """Live migrations of a server that go on."""
    c = migrations.c
    query = sa.select(migrations).where(
        c.instance_uuid == server_uuid, c.migration_type == LIVE, c.status.in_(IN_PROGRESS)
    )
    return [Migration(*row) for row in await tx.execute(query.order_by(c.id))]


async def insert(tx: Tx, values: dict[str, Any]) -> int:
    key = (await tx.execute(sa.insert(migrations).values(values))).inserted_primary_key
    assert key is not None
    return int(key[0])


async def update(tx: Tx, row_id: int, **values: Any) -> None:
    await tx.execute(sa.update(migrations).where(migrations.c.id == row_id).values(**values))
