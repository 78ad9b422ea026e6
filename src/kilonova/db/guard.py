"""Guarded updates: one statement that tells apart changed, stale and missing."""

from __future__ import annotations

import enum
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx


class Outcome(enum.Enum):
    UPDATED = "updated"
    STALE = "stale"
    """The row exists, but the guard did not hold."""
    MISSING = "missing"


async def update(
    tx: Tx, table: sa.Table, identity: sa.ColumnElement[bool], guard: sa.ColumnElement[bool], **values: Any
) -> Outcome:
    """UPDATE the row of `identity` where `guard` holds too; only a refusal costs a second statement."""
    result = await tx.execute(sa.update(table).where(identity, guard).values(**values))
    if result.rowcount:
        return Outcome.UPDATED
    found = (await tx.execute(sa.select(sa.literal(1)).select_from(table).where(identity))).first()
    return Outcome.STALE if found else Outcome.MISSING
