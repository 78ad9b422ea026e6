"""What is cached of servers' ports is brought up to date when Networking tells that something has changed.

Events may be lost: from time to time all servers are looked at, a page of them with as many calls as one.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import sqlalchemy as sa
import structlog

from kilonova.compute import refresh
from kilonova.conductor.pace import Pace
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.errors import KilonovaError
from kilonova.reconcile.periodic import periodically
from kilonova.runtime import Runtime
from kilonova.workflows.steps import ports

log = structlog.get_logger()

TRIES = 5
PAGE = 100
"""Servers that are looked at together."""
TOGETHER = 0.05
"""Seconds for which further news of the same server are waited for."""


class NetworkInfo:
    def __init__(self, rt: Runtime, pace: Pace) -> None:
        self.rt = rt
        self.period = pace.network_info
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    def poke(self, server_uuid: str) -> None:
        """Look at this server's ports soon; once for all pokes that come meanwhile."""
        if self.rt.network is None:
            return
        if server_uuid in self._running:
            self._again.add(server_uuid)
            return
        task = asyncio.get_running_loop().create_task(self._run(server_uuid))
        self._running[server_uuid] = task

    async def stop(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self, server_uuid: str) -> None:
        try:
            while True:
                await self.rt.world.sleep(TOGETHER)
                self._again.discard(server_uuid)
                await self._refresh_patiently(server_uuid)
                if server_uuid not in self._again:
                    return
        except Exception:
            log.exception("a server's addresses were not brought up to date", server=server_uuid)
        finally:
            self._running.pop(server_uuid, None)

    async def _refresh_patiently(self, server_uuid: str) -> None:
        for number in range(TRIES):
            try:
                if await refresh.refresh(self.rt, server_uuid):
                    return
            except KilonovaError as error:
                log.info("a server's ports were not looked at", server=server_uuid, reason=error.message)
            await self.rt.world.sleep(0.2 * 3.0**number)

    async def loop(self) -> None:
        await periodically(self.rt.world, self.period, self.once, "servers' ports not looked at")

    async def once(self) -> int:
        """Look at all servers that are on a host; returns how many had to be brought up to date."""
        assert self.rt.network is not None
        c = instances.c
        last = differ = 0
        while True:
            query = (
                sa.select(instances)
                .where(c.id > last, c.deleted == 0, c.host.is_not(None), c.operation_id.is_(None))
                .order_by(c.id)
                .limit(PAGE)
            )
            page = await self.rt.db.read(functools.partial(_servers, query=query))
            if not page:
                return differ
            last = page[-1].id
            found = await self.rt.network.find("ports", {"device_id": [server.uuid for server in page]})
            facts = await ports.look_up(self.rt.network, found, floating=True)
            for server in page:
                mine = [port for port in found if port["device_id"] == server.uuid]
                if refresh.changes(server, refresh.in_order(server, mine), facts):
                    differ += 1
                    self.poke(server.uuid)


async def _servers(tx: Tx, query: sa.Select[Any]) -> list[Server]:
    return [servers.from_row(row) for row in await tx.execute(query)]
