"""Rows of deleted servers: moved out of the tables that requests read, later dropped.

All that carries a server's UUID goes with it. The moved rows stand whole in one table, each as a document.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.db.engine import Database, Tx
from kilonova.db.tables import instances, metadata, operation_steps, operations, shadow_rows, tags, tombstones

SERVERS = 50
"""In one transaction."""


async def archive(
    db: Database, *, now: dt.datetime, before: dt.datetime | None = None, max_rows: int = 1000
) -> dict[str, int]:
    """Move rows of servers deleted before then, oldest first; how many of each table.

    Stops after the server with which there are `max_rows` of them.
    """
    moved: Counter[str] = Counter()
    while moved.total() < max_rows:
        wanted = min(SERVERS, max_rows - moved.total())
        step = await db.write(lambda tx, wanted=wanted: _move(tx, now, before, wanted))  # type: ignore[misc]
        if not step:
            break
        moved += step
    return dict(moved)


async def _move(tx: Tx, now: dt.datetime, before: dt.datetime | None, limit: int) -> Counter[str]:
    c = instances.c
    query = sa.select(c.id, c.uuid, c.deleted_at).where(c.deleted != 0)
    if before is not None:
        query = query.where(c.deleted_at < before)
    chosen = (await tx.execute(query.order_by(c.id).limit(limit).with_for_update(skip_locked=True))).all()
    moved: Counter[str] = Counter()
    if not chosen:
        return moved
    deleted_at = {row.uuid: row.deleted_at for row in chosen}
    servers = {uuid: uuid for uuid in deleted_at}
    theirs = sa.select(operations.c.id, operations.c.server_uuid).where(operations.c.server_uuid.in_(servers))
    steps = {row.id: row.server_uuid for row in await tx.execute(theirs)}
    moved += await _take(tx, operation_steps, operation_steps.c.operation_id, steps, now, deleted_at)
    for table, column in [*_children(), (instances, c.uuid)]:
        moved += await _take(tx, table, column, servers, now, deleted_at)
    return moved


def _children() -> list[tuple[sa.Table, sa.ColumnElement[Any]]]:
    # A tombstone is not a trace of a server but work that is left to do.
    named = [table for table in metadata.sorted_tables if "server_uuid" in table.c and table is not tombstones]
    return [(tags, tags.c.resource_id), *((table, table.c.server_uuid) for table in named if table is not shadow_rows)]


async def _take(
    tx: Tx,
    table: sa.Table,
    column: sa.ColumnElement[Any],
    servers: Mapping[Any, str],
    now: dt.datetime,
    deleted_at: Mapping[str, Any],
) -> Counter[str]:
    """`servers`: by the column's values."""
    if not servers:
        return Counter()
    rows = (await tx.execute(sa.select(table).where(column.in_(servers)))).mappings().all()
    if not rows:
        return Counter()
    documents = [
        {
            "table_name": table.name,
            "server_uuid": servers[row[column]],
            "deleted_at": deleted_at[servers[row[column]]] or now,
            "archived_at": now,
            "document": msgspec.to_builtins(dict(row)),
        }
        for row in rows
    ]
    await tx.execute(sa.insert(shadow_rows), documents)
    await tx.execute(sa.delete(table).where(column.in_(servers)))
    return Counter({table.name: len(rows)})


async def purge(db: Database, *, before: dt.datetime | None = None) -> dict[str, int]:
    """Drop moved rows of servers that were deleted before then (None: all); how many of each table."""

    async def work(tx: Tx) -> dict[str, int]:
        c = shadow_rows.c
        which = sa.true() if before is None else c.deleted_at < before
        counted = await tx.execute(sa.select(c.table_name, sa.func.count()).where(which).group_by(c.table_name))
        found = {row[0]: int(row[1]) for row in counted}
        await tx.execute(sa.delete(shadow_rows).where(which))
        return found

    return await db.write(work)
