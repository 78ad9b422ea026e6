"""How many operations stand where, and for how long: what /metrics shows of the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable

import sqlalchemy as sa

from kilonova.db.engine import Database, Tx
from kilonova.db.tables import operations
from kilonova.db.tables.operations import QUEUED
from kilonova.db.types import database_seconds
from kilonova.metrics import families
from kilonova.world import World

QUEUES = ("ready", "queued", "running", "lost", "stuck")
"""As in docs/observability.md; `lost`: nobody has renewed its lease."""


async def read(db: Database) -> dict[str, tuple[int, dt.datetime]]:
    """Of each queue that is not empty: how many, and since when its oldest was accepted (UTC)."""

    async def work(tx: Tx) -> dict[str, tuple[int, dt.datetime]]:
        return {row.queue: (row.length, row.oldest) for row in await tx.execute(_READ)}

    return await db.read(work)


def probe(db: Database, world: World) -> Callable[[], Awaitable[None]]:
    """Sets the gauges of the queues."""

    async def ask() -> None:
        found = await read(db)
        now = world.now()
        for queue in QUEUES:
            length, oldest = found.get(queue, (0, now))
            families.QUEUE_LENGTH.labels(queue).set(length)
            families.QUEUE_AGE_SECONDS.labels(queue).set(max(0.0, (now - oldest).total_seconds()))

    return ask


def _statement() -> sa.Select[tuple[str, int, dt.datetime]]:
    c = operations.c
    lost = sa.and_(c.state == "running", c.lease_until < database_seconds())
    queue = sa.case((lost, "lost"), else_=c.state).label("queue")
    return (
        sa.select(queue, sa.func.count().label("length"), sa.func.min(c.created_at).label("oldest"))
        .where(c.state.in_(("ready", QUEUED, "running", "stuck")))
        .group_by(queue)
    )


_READ = _statement()
