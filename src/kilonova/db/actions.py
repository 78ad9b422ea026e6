"""Operations and their steps, as `os-instance-actions` shows them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import operation_steps, operations
from kilonova.db.tables.operations import OPEN


@dataclass(frozen=True, slots=True)
class Action:
    """One operation. Times are UTC."""

    id: int
    kind: str
    action: str
    server_uuid: str
    request_id: str
    user_id: str
    project_id: str
    state: str
    error: str | None
    created_at: dt.datetime
    updated_at: dt.datetime | None
    finished_at: dt.datetime | None
    phase: str
    step: int
    progress: dict[str, Any] | None
    """`stage` and `percent` of the step under way."""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def changed_at(self) -> dt.datetime:
        return self.updated_at or self.finished_at or self.created_at


@dataclass(frozen=True, slots=True)
class Event:
    """One step of an operation, done or undone once."""

    name: str
    phase: str
    host: str | None
    result: str | None
    details: str | None
    traceback: str | None
    started_at: dt.datetime
    finished_at: dt.datetime | None


class MarkerNotFound(Exception):
    """The marker names no operation of the server."""


_o = operations.c
_COLUMNS = (
    _o.id, _o.kind, _o.action, _o.server_uuid, _o.request_id, _o.user_id, _o.project_id, _o.state, _o.error,
    _o.created_at, _o.updated_at, _o.finished_at, _o.phase, _o.step, _o.progress,
)  # fmt: skip
_CHANGED = sa.func.coalesce(_o.updated_at, _o.finished_at, _o.created_at)


async def page(
    tx: Tx,
    server_uuid: str,
    *,
    limit: int | None = None,
    marker: str | None = None,
    changes_since: dt.datetime | None = None,
    changes_before: dt.datetime | None = None,
) -> list[Action]:
    """The server's operations, newest first; `marker` is a request id. Raises MarkerNotFound."""
    if limit == 0:
        return []
    query = sa.select(*_COLUMNS).where(_o.server_uuid == server_uuid).order_by(_o.id.desc())
    if marker is not None:
        found = await get(tx, server_uuid, marker)
        if found is None:
            raise MarkerNotFound
        query = query.where(_o.id < found.id)
    if changes_since is not None:
        query = query.where(changes_since <= _CHANGED)
    if changes_before is not None:
        query = query.where(changes_before >= _CHANGED)
    if limit is not None:
        query = query.limit(limit)
    return [Action(*tuple(row)) for row in await tx.execute(query)]


async def get(tx: Tx, server_uuid: str, request_id: str) -> Action | None:
    """The operation that a request started; the latest, should a client have used the request id again."""
    query = (
        sa.select(*_COLUMNS)
        .where(_o.server_uuid == server_uuid, _o.request_id == request_id)
        .order_by(_o.id.desc())
        .limit(1)
    )
    row = (await tx.execute(query)).first()
    return None if row is None else Action(*tuple(row))


async def events(tx: Tx, operation_id: int) -> list[Event]:
    """The operation's steps as far as they went, latest first."""
    s = operation_steps.c
    query = (
        sa.select(s.name, s.phase, s.host, s.result, s.details, s.traceback, s.started_at, s.finished_at)
        .where(s.operation_id == operation_id)
        .order_by(s.id.desc())
    )
    return [Event(*row) for row in await tx.execute(query)]
