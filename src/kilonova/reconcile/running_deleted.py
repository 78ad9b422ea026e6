"""Guests that outlived their servers, as after a host's disk was restored: what `running_deleted_instance_action` says.

Only guests that carry this deployment's id are reported, and only servers that it deleted itself count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import sqlalchemy as sa
import structlog

from kilonova.agent.commands import StopArgs
from kilonova.conductor.agents import Agents
from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import operations, tombstones
from kilonova.engine.model import Fenced
from kilonova.errors import KilonovaError
from kilonova.reconcile.tombstones import LAST_ATTEMPT
from kilonova.runtime import Runtime

log = structlog.get_logger()

LATE = 60.0
"""Seconds in which a report from before the deletion may arrive."""


class RunningDeleted:
    def __init__(self, rt: Runtime, agents: Agents) -> None:
        self.rt = rt
        self.agents = agents
        self._next: dict[str, float] = {}
        """When a host is looked at again, by the monotonic clock."""

    async def found(self, host: str, servers: Sequence[Server]) -> None:
        """A host reports guests of these deleted servers."""
        settings = self.rt.settings
        interval = settings.running_deleted_instance_poll_interval
        action = settings.running_deleted_instance_action
        now = self.rt.world.monotonic()
        if action == "noop" or interval < 0 or now < self._next.get(host, now):
            return
        patience = max(LATE, settings.running_deleted_instance_timeout)
        old = [server for server in servers if self._age(server) >= patience]
        if not old:
            return
        self._next[host] = now + interval
        for server in old:
            await self._act(host, server, action)

    def _age(self, server: Server) -> float:
        """Seconds since the deletion."""
        return (self.rt.world.now() - server.deleted_at).total_seconds() if server.deleted_at else 0.0

    async def _act(self, host: str, server: Server, action: str) -> None:
        log.warning("host has a guest whose server was deleted", host=host, server=server.uuid, action=action)
        if action == "log":
            return
        last = await self.rt.db.read(lambda tx: _last_operation(tx, server.uuid))
        if action == "shutdown":
            await self._stop(host, server.uuid, last)
        else:
            now = self.rt.world.now()
            values = {"host": host, "server_uuid": server.uuid, "operation_id": last, "created_at": now}
            await self.rt.db.write(lambda tx: insert_if_missing(tx, tombstones, values))

    async def _stop(self, host: str, uuid: str, operation_id: int) -> None:
        try:
            async with asyncio.timeout(60.0):
                await self.agents.call(
                    host=host,
                    key=f"{operation_id}/running-deleted/do/{LAST_ATTEMPT}.{self.rt.world.random.getrandbits(40)}",
                    operation_id=operation_id,
                    server_uuid=uuid,
                    verb="stop",
                    args=StopArgs(uuid=uuid, clean=False),
                )
        except (Fenced, KilonovaError, TimeoutError) as error:
            log.warning("guest of a deleted server not stopped", host=host, server=uuid, error=str(error))


async def _last_operation(tx: Tx, server_uuid: str) -> int:
    """Of the server: hosts refuse commands of earlier ones."""
    query = sa.select(sa.func.max(operations.c.id)).where(operations.c.server_uuid == server_uuid)
    return int((await tx.execute(query)).scalar_one() or 0)
