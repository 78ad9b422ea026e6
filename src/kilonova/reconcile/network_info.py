"""What is cached of servers' ports is brought up to date when Networking tells that something has changed."""

from __future__ import annotations

import asyncio

import structlog

from kilonova.compute import network_info
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.tables import instances
from kilonova.errors import KilonovaError
from kilonova.runtime import Runtime
from kilonova.workflows.steps import ports

log = structlog.get_logger()

TRIES = 5
TOGETHER = 0.05
"""Seconds for which further news of the same server are waited for."""


class NetworkInfo:
    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
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
                if await self.refresh(server_uuid):
                    return
            except KilonovaError as error:
                log.info("a server's ports were not looked at", server=server_uuid, reason=error.message)
            await self.rt.world.sleep(0.2 * 3.0**number)

    async def refresh(self, server_uuid: str) -> bool:
        """Look now. False when the server was changed meanwhile, so that what was seen may be out of date."""
        assert self.rt.network is not None
        # The row first: what changes after this moment changes its generation too.
        server = await self.rt.db.read(lambda tx: servers.get(tx, server_uuid))
        if server is None or server.deleting or server.host is None:
            return True
        found = await self.rt.network.find("ports", {"device_id": server_uuid})
        places = {nic.port_id: number for number, nic in enumerate(network_info.nics_of(server.network_info))}
        found.sort(key=lambda port: (places.get(port["id"], len(places)), port["id"]))
        nics, names = await ports.describe(self.rt.network, server, found, floating=True)
        values = network_info.columns(nics, names)
        if values["network_info"] == (server.network_info or []) and values["addresses"] == server.addresses:
            return True

        async def work(tx: Tx) -> bool:
            return await servers.update(tx, server_uuid, instances.c.generation == server.generation, **values)

        return await self.rt.db.write(work)
