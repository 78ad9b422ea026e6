"""A server's operations with all that their steps left behind, for `kilonova trace`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import instances, operation_steps, operations


@dataclass(frozen=True, slots=True)
class Found:
    """A server that a name or an id may mean."""

    uuid: str
    name: str
    project_id: str
    created_at: dt.datetime
    deleted: bool


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One step, done or undone once. `waits`: as `engine.model.Wait`."""

    operation_id: int
    name: str
    phase: str
    attempt: int
    host: str | None
    error: str | None
    epoch: int
    waits: list[tuple[str, str, float, float]]
    started_at: dt.datetime
    finished_at: dt.datetime


@dataclass(frozen=True, slots=True)
class TracedOperation:
    """Times are UTC; `lease_until` in seconds since 1970."""

    id: int
    kind: str
    action: str
    request_id: str
    state: str
    phase: str
    step: int
    attempt: int
    epoch: int
    lease_until: float
    progress: dict[str, Any] | None
    error: str | None
    traceparent: str | None
    created_at: dt.datetime
    finished_at: dt.datetime | None
    steps: tuple[TracedStep, ...] = ()


async def find(tx: Tx, text: str) -> list[Found]:
    """Servers with this id or name, the living before the deleted, the newest first."""
    c = instances.c
    query = (
        sa.select(c.uuid, c.display_name, c.project_id, c.created_at, c.deleted)
        .where(sa.or_(c.uuid == text, c.display_name == text))
        .order_by(sa.case((c.deleted == 0, 0), else_=1), c.created_at.desc())
        .limit(100)
    )
    rows = await tx.execute(query)
    return [Found(row.uuid, row.display_name, row.project_id, row.created_at, bool(row.deleted)) for row in rows]


async def operations_of(tx: Tx, server_uuid: str, *, limit: int) -> list[TracedOperation]:
    """The newest `limit` operations of the server, oldest first."""
    o = operations.c
    query = (
        sa.select(
            o.id, o.kind, o.action, o.request_id, o.state, o.phase, o.step, o.attempt, o.epoch, o.lease_until,
            o.progress, o.error, o.traceparent, o.created_at, o.finished_at,
        )
        .where(o.server_uuid == server_uuid)
        .order_by(o.id.desc())
        .limit(limit)
    )  # fmt: skip
    rows = [dict(row._mapping) for row in await tx.execute(query)][::-1]
    steps = await _steps(tx, [row["id"] for row in rows])
    return [
        TracedOperation(**row, steps=tuple(step for step in steps if step.operation_id == row["id"])) for row in rows
    ]


async def _steps(tx: Tx, ids: Sequence[int]) -> list[TracedStep]:
    s = operation_steps.c
    query = (
        sa.select(
            s.operation_id, s.name, s.phase, s.attempt, s.host, s.details.label("error"), s.epoch, s.waits,
            s.started_at, s.finished_at,
        )
        .where(s.operation_id.in_(ids))
        .order_by(s.id)
    )  # fmt: skip
    found = []
    for row in await tx.execute(query):
        values = dict(row._mapping)
        values["waits"] = [tuple(wait) for wait in row.waits or ()]
        values["finished_at"] = row.finished_at or row.started_at
        found.append(TracedStep(**values))
    return found
