"""The statements on operations and their steps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from kilonova import tracing
from kilonova.db.engine import Database, Tx
from kilonova.db.tables import operation_steps, operations
from kilonova.db.tables.operations import OPEN, QUEUED
from kilonova.db.types import database_seconds
from kilonova.engine.model import Fenced, Operation, Run

_COLUMNS = (
    operations.c.id,
    operations.c.kind,
    operations.c.action,
    operations.c.server_uuid,
    operations.c.project_id,
    operations.c.user_id,
    operations.c.request_id,
    operations.c.state,
    operations.c.phase,
    operations.c.step,
    operations.c.attempt,
    operations.c.owner,
    operations.c.epoch,
    operations.c.data,
    operations.c.secrets,
    operations.c.created_at,
    operations.c.traceparent,
)

MAX_LEASE = 120.0
"""Seconds; a lease further ahead than this was taken on a clock that has since been set back, and counts as expired."""


async def insert(
    tx: Tx,
    *,
    kind: str,
    action: str,
    server_uuid: str,
    project_id: str,
    user_id: str,
    request_id: str,
    now: dt.datetime,
    data: dict[str, Any] | None = None,
    secrets: dict[str, Any] | None = None,
    state: str = "ready",
) -> int:
    """Insert one operation and return its id. `state`: 'done' records an action that was over at once,
    'queued' one that nobody begins before it is its turn.
    """
    values = {
        "kind": kind,
        "action": action,
        "server_uuid": server_uuid,
        "project_id": project_id,
        "user_id": user_id,
        "request_id": request_id,
        "state": state,
        "data": data or {},
        "secrets": secrets,
        "created_at": now,
        "finished_at": now if state == "done" else None,
        "traceparent": tracing.traceparent(),
    }
    result = await tx.execute(_INSERT, values)
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


async def started(tx: Tx, server_uuids: Sequence[str], kind: str, request_id: str) -> list[tuple[str, int]]:
    """(server, operation) of what a request started on these servers, oldest first: after a lost COMMIT's answer."""
    c = operations.c
    query = sa.select(c.server_uuid, c.id).where(
        c.server_uuid.in_(server_uuids), c.kind == kind, c.request_id == request_id
    )
    return [(row.server_uuid, row.id) for row in await tx.execute(query.order_by(c.id))]


async def supersede(tx: Tx, operation_id: int, now: dt.datetime, error: str) -> None:
    """End an operation from outside. Whoever runs it meets the fence at its next commit."""
    await tx.execute(
        sa.update(operations)
        .where(operations.c.id == operation_id, operations.c.state.in_((*OPEN, QUEUED, "stuck")))
        .values(
            state="superseded",
            owner=None,
            epoch=operations.c.epoch + 1,
            secrets=None,
            error=error,
            updated_at=now,
            finished_at=now,
        )
    )


async def put_in_queue(tx: Tx, operation_id: int) -> None:
    """An operation that was inserted in this transaction waits for its turn."""
    await tx.execute(sa.update(operations).where(operations.c.id == operation_id).values(state=QUEUED))


async def queued(tx: Tx, server_uuid: str) -> list[int]:
    """The operations that wait for their turn on this server, in their order."""
    c = operations.c
    rows = await tx.execute(sa.select(c.id).where(c.server_uuid == server_uuid, c.state == QUEUED).order_by(c.id))
    return [row.id for row in rows]


async def begin_queued(tx: Tx, operation_id: int) -> None:
    """It is its turn: from now on it can be claimed."""
    await tx.execute(
        sa.update(operations).where(operations.c.id == operation_id, operations.c.state == QUEUED).values(state="ready")
    )


async def supersede_queued(tx: Tx, server_uuid: str, now: dt.datetime, error: str) -> None:
    """End all that wait for their turn on this server."""
    await tx.execute(
        sa.update(operations)
        .where(operations.c.server_uuid == server_uuid, operations.c.state == QUEUED)
        .values(state="superseded", secrets=None, error=error, updated_at=now, finished_at=now)
    )


async def outcome(db: Database, operation_id: int) -> tuple[str, str | None, dict[str, Any]] | None:
    """(state, error, data) of an operation."""

    async def work(tx: Tx) -> tuple[str, str | None, dict[str, Any]] | None:
        c = operations.c
        row = (await tx.execute(sa.select(c.state, c.error, c.data).where(c.id == operation_id))).first()
        return (row.state, row.error, row.data) if row else None

    return await db.read(work)


async def claim(db: Database, operation_id: int, owner: str, lease: float) -> Operation | None:
    """Take an operation that is ready, or whose owner's lease has run out; None when it is not to be had."""

    async def work(tx: Tx) -> Operation | None:
        taken = await tx.execute(_CLAIM, {"my_id": operation_id, "my_owner": owner, "my_lease": lease})
        if not taken.rowcount:
            return None
        row: Sequence[Any] = (await tx.execute(_SELECT, {"my_id": operation_id})).one()
        return Operation(*row)

    return await db.write(work)


def _claimable() -> sa.ColumnElement[bool]:
    seconds = database_seconds()
    ready = sa.and_(operations.c.state == "ready", operations.c.wake_at <= seconds)
    lost = sa.and_(
        operations.c.state == "running",
        sa.or_(operations.c.lease_until < seconds, operations.c.lease_until > seconds + MAX_LEASE),
    )
    return sa.or_(ready, lost)


# Built once: making a statement takes longer than running it.
_INSERT = sa.insert(operations)
_INSERT_STEP = sa.insert(operation_steps)
_SELECT = sa.select(*_COLUMNS).where(operations.c.id == sa.bindparam("my_id"))
_CLAIM = (
    sa.update(operations)
    .where(operations.c.id == sa.bindparam("my_id"), _claimable())
    .values(
        state="running",
        owner=sa.bindparam("my_owner"),
        epoch=operations.c.epoch + 1,
        lease_until=database_seconds() + sa.bindparam("my_lease", type_=sa.Double()),
    )
)
_FENCED = sa.update(operations).where(
    operations.c.id == sa.bindparam("my_id"),
    operations.c.epoch == sa.bindparam("my_epoch"),
    operations.c.owner == sa.bindparam("my_owner"),
    operations.c.state == "running",
)


async def claimable(
    db: Database, limit: int, *, exclude: Sequence[int] = (), kinds: Sequence[str] = ()
) -> list[tuple[int, bool]]:
    """Operations to take, of these kinds, oldest first: id, and whether somebody's lease on it has run out."""

    async def work(tx: Tx) -> list[tuple[int, bool]]:
        query = sa.select(operations.c.id, operations.c.state).where(operations.c.state.in_(OPEN), _claimable())
        if exclude:
            query = query.where(operations.c.id.not_in(exclude))
        if kinds:
            query = query.where(operations.c.kind.in_(kinds))
        rows = await tx.execute(query.order_by(operations.c.id).limit(limit))
        return [(row.id, row.state == "running") for row in rows]

    return await db.read(work)


async def renew(db: Database, owner: str, ids: Sequence[int], lease: float) -> int:
    """Prolong the leases of these operations if `owner` still has them, one statement; returns how many."""

    async def work(tx: Tx) -> int:
        result = await tx.execute(
            sa.update(operations)
            .where(operations.c.id.in_(ids), operations.c.owner == owner, operations.c.state == "running")
            .values(lease_until=database_seconds() + lease)
        )
        return result.rowcount

    return await db.write(work)


async def expire_all(db: Database) -> int:
    """End every lease: for a process that is known to be alone, at its start."""

    async def work(tx: Tx) -> int:
        result = await tx.execute(
            sa.update(operations).where(operations.c.state == "running").values(lease_until=0, wake_at=0)
        )
        return result.rowcount

    return await db.write(work)


async def release(db: Database, run: Run[Any], delay: float) -> None:
    """Give the operation back, to be taken again after `delay` seconds."""

    async def work(tx: Tx) -> None:
        await fence(tx, run, state="ready", owner=None)
        wake_at = database_seconds() + delay
        await tx.execute(sa.update(operations).where(operations.c.id == run.id).values(wake_at=wake_at))

    await db.write(work)


async def fence(tx: Tx, run: Run[Any], **values: Any) -> None:
    """Write to the operation if this process still owns it; raises Fenced otherwise."""
    operation = run.operation
    mine = {"my_id": operation.id, "my_epoch": operation.epoch, "my_owner": operation.owner}
    if not (await tx.execute(_FENCED, mine | values)).rowcount:
        raise Fenced


async def position(db: Database, operation_id: int) -> tuple[int, str, int, str, int] | None:
    """(step, phase, attempt, state, epoch) as stored: after a COMMIT whose answer was lost."""

    async def work(tx: Tx) -> tuple[int, str, int, str, int] | None:
        c = operations.c
        row = (
            await tx.execute(sa.select(c.step, c.phase, c.attempt, c.state, c.epoch).where(c.id == operation_id))
        ).first()
        return (row.step, row.phase, row.attempt, row.state, row.epoch) if row else None

    return await db.read(work)


async def add_step(
    tx: Tx,
    run: Run[Any],
    name: str,
    *,
    started_at: dt.datetime,
    finished_at: dt.datetime,
    error: str | None = None,
    traceback: str | None = None,
) -> None:
    values = {
        "operation_id": run.id,
        "name": name,
        "phase": run.phase,
        "attempt": run.attempt,
        "host": run.host,
        "result": "Error" if error else "Success",
        "details": error,
        "traceback": traceback,
        "epoch": run.operation.epoch,
        "waits": run.waits or None,
        "started_at": started_at,
        "finished_at": finished_at,
    }
    await tx.execute(_INSERT_STEP, values)


async def save_progress(db: Database, operation_id: int, stage: str, percent: int) -> None:
    """Shown with the step under way; not fenced, since nothing is decided by it."""

    async def work(tx: Tx) -> None:
        await tx.execute(
            sa.update(operations)
            .where(operations.c.id == operation_id, operations.c.state == "running")
            .values(progress={"stage": stage, "percent": percent})
        )

    await db.write(work)
