"""A host that was booted: its guests are off, though nobody asked for that."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.compute import states
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.tables import instances
from kilonova.engine import store
from kilonova.world import World


async def start_guests(tx: Tx, world: World, host: str) -> list[int]:
    """Begin to start every server of the host that ran before and that nothing is being done to."""
    c = instances.c
    query = sa.select(c.uuid, c.project_id, c.user_id).where(
        c.host == host, c.deleted == 0, c.vm_state == states.ACTIVE, c.operation_id.is_(None), c.deleting.is_(False)
    )
    started = []
    now = world.now()
    for row in (await tx.execute(query)).all():
        operation_id = await store.insert(
            tx,
            kind="start",
            action="start",
            server_uuid=row.uuid,
            project_id=row.project_id,
            user_id=row.user_id,
            request_id=f"req-{world.uuid()}",
            now=now,
        )
        taken = await servers.update(
            tx,
            row.uuid,
            c.operation_id.is_(None),
            operation_id=operation_id,
            task_state=states.POWERING_ON,
            generation=c.generation + 1,
            updated_at=now,
        )
        if taken:
            started.append(operation_id)
        else:
            await store.supersede(tx, operation_id, now, "Something else was begun with the server.")
    return started
