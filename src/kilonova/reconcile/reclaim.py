"""Servers that were softly deleted, and that nobody has restored in time: they go for good."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
import structlog

from kilonova.compute import states
from kilonova.compute.servers import delete as deletion
from kilonova.context import on_behalf_of
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.reconcile.periodic import periodically
from kilonova.runtime import Runtime

log = structlog.get_logger()

BATCH = 100
PERIOD = 60.0
"""Seconds between looks at most; a shorter `reclaim_instance_interval` is looked at as often as that."""


class Reclaim:
    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self.interval = rt.settings.reclaim_instance_interval

    async def loop(self) -> None:
        await periodically(self.rt.world, min(PERIOD, self.interval), self.once, "softly deleted servers not reclaimed")

    async def once(self) -> int:
        """Returns how many deletions were begun."""
        before = self.rt.world.now() - dt.timedelta(seconds=self.interval)
        c = instances.c

        async def look(tx: Tx) -> list[Server]:
            due = (c.vm_state == states.SOFT_DELETED, c.deleted == 0, c.deleting.is_(False), c.deleted_at < before)
            rows = await tx.execute(sa.select(instances).where(*due).order_by(c.deleted_at).limit(BATCH))
            return [servers.from_row(row) for row in rows]

        due = await self.rt.db.read(look)
        for server in due:
            log.info("reclaiming a softly deleted server", server=server.uuid, deleted_at=str(server.deleted_at))
            ctx = on_behalf_of(server.user_id, server.project_id, f"req-{self.rt.world.uuid()}")
            await deletion.delete(self.rt, ctx, server, reclaim_before=before)
        return len(due)
