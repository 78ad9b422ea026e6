"""Projects whose usage is not what their servers add up to, as after a restored backup or a hand at work."""

from __future__ import annotations

import structlog

from kilonova.compute import quotas
from kilonova.conductor.pace import Pace
from kilonova.db import quotas as rows
from kilonova.reconcile.periodic import periodically
from kilonova.runtime import Runtime

log = structlog.get_logger()


class QuotaUsage:
    """Looks without locks, and counts again, under the project's lock, only where something looks wrong."""

    def __init__(self, rt: Runtime, pace: Pace) -> None:
        self.rt = rt
        self.period = pace.quota_usage

    async def loop(self) -> None:
        await periodically(self.rt.world, self.period, self.once, "usage of quotas not counted")

    async def once(self) -> list[str]:
        """Returns the projects that were wrong."""
        wrong = []
        for project_id in await self.rt.db.read(rows.drifted):
            if await quotas.recount(self.rt, project_id):
                log.warning("usage of a project was wrong", project=project_id)
                wrong.append(project_id)
        return wrong
