"""Servers deleted while their host was away: when it is back, the guest goes too."""

from __future__ import annotations

import asyncio
import contextlib

import sqlalchemy as sa
import structlog

from kilonova.agent.commands import DestroyArgs
from kilonova.conductor.agents import Agents
from kilonova.conductor.hosts import Hosts
from kilonova.conductor.pace import PACE, Pace
from kilonova.db.engine import Tx
from kilonova.db.tables import tombstones
from kilonova.engine.model import Fenced
from kilonova.errors import KilonovaError
from kilonova.reconcile.stray_ports import release_ports_of
from kilonova.runtime import Runtime
from kilonova.workflows.steps.destroy import NETWORK

log = structlog.get_logger()

BATCH = 20

LAST_ATTEMPT = 1_000_000


class Tombstones:
    def __init__(self, rt: Runtime, hosts: Hosts, agents: Agents, pace: Pace = PACE) -> None:
        self.rt = rt
        self.hosts = hosts
        self.agents = agents
        self.period = pace.tombstones
        self._poked = asyncio.Event()

    def poke(self) -> None:
        self._poked.set()

    async def loop(self) -> None:
        while True:
            try:
                await self.once()
            except Exception as error:
                log.warning("tombstones not looked at", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.period):
                    await self._poked.wait()
            self._poked.clear()

    async def once(self) -> int:
        """Clear what can be cleared now; returns how many."""
        c = tombstones.c

        async def look(tx: Tx) -> list[tuple[str, str, int]]:
            rows = await tx.execute(sa.select(c.host, c.server_uuid, c.operation_id).order_by(c.created_at).limit(200))
            return [(row.host, row.server_uuid, row.operation_id) for row in rows]

        found = await self.rt.db.read(look)
        up = {host: await self._answers(host) for host in {host for host, _, _ in found}}
        ready = [row for row in found if up[row[0]]]
        cleared = 0
        for start in range(0, len(ready), BATCH):
            results = await asyncio.gather(*(self._clear(*row) for row in ready[start : start + BATCH]))
            cleared += sum(results)
        return cleared

    async def _answers(self, host: str) -> bool:
        return self.rt.network is not None if host == NETWORK else await self.hosts.is_up(host)

    async def _clear(self, host: str, uuid: str, operation_id: int) -> bool:
        try:
            async with asyncio.timeout(60.0):
                if host == NETWORK:
                    await release_ports_of(self.rt, uuid)
                    return await self._forget(host, uuid, operation_id)
                await self.agents.call(
                    host=host,
                    # A try of its own each time: an earlier failure must not be answered from the journal. An attempt
                    # after all others: what that operation had asked for before, and comes late, is refused.
                    key=f"{operation_id}/tombstone/undo/{LAST_ATTEMPT}.{self.rt.world.random.getrandbits(40)}",
                    operation_id=operation_id,
                    server_uuid=uuid,
                    verb="destroy",
                    args=DestroyArgs(uuid=uuid),
                )
        except Fenced:
            log.info("tombstone void: the host has a newer operation of this server", host=host, server=uuid)
        except (KilonovaError, TimeoutError) as error:
            log.warning("host still has a deleted server", host=host, server=uuid, error=str(error))
            return False
        return await self._forget(host, uuid, operation_id)

    async def _forget(self, host: str, uuid: str, operation_id: int) -> bool:
        async def forget(tx: Tx) -> None:
            c = tombstones.c
            await tx.execute(
                sa.delete(tombstones).where(c.host == host, c.server_uuid == uuid, c.operation_id == operation_id)
            )

        await self.rt.db.write(forget)
        return True
