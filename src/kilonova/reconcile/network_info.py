"""What is cached of servers' ports is brought up to date when Networking tells that something has changed.

Events may be lost: from time to time all servers are looked at, a page of them with as many calls as one.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
import structlog

from kilonova.compute import attach, network_info
from kilonova.conductor.pace import Pace
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.errors import KilonovaError
from kilonova.networking import Document
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
                if await self.refresh(server_uuid):
                    return
            except KilonovaError as error:
                log.info("a server's ports were not looked at", server=server_uuid, reason=error.message)
            await self.rt.world.sleep(0.2 * 3.0**number)

    async def loop(self) -> None:
        while True:
            await self.rt.world.sleep(self.period * (0.75 + 0.5 * self.rt.world.random.random()))
            try:
                await self.once()
            except Exception as error:
                log.warning("servers' ports not looked at", error=str(error))

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
                if _changes(server, _in_order(server, mine), facts):
                    differ += 1
                    self.poke(server.uuid)

    async def refresh(self, server_uuid: str) -> bool:
        """Look now. False when the server was changed meanwhile, so that what was seen may be out of date."""
        assert self.rt.network is not None
        # The row first: what changes after this moment changes its generation too.
        server = await self.rt.db.read(lambda tx: servers.get(tx, server_uuid))
        if server is None or server.deleting or server.host is None:
            return True
        found = _in_order(server, await self.rt.network.find("ports", {"device_id": server_uuid}))
        lost = {nic.port_id for nic in network_info.nics_of(server.network_info)} - {port["id"] for port in found}
        if lost and server.vm_state in attach.FROM:
            return await self._detach(server, lost)
        changes = _changes(server, found, await ports.look_up(self.rt.network, found, floating=True))
        if not changes:
            return True

        async def work(tx: Tx) -> bool:
            return await servers.update(tx, server_uuid, instances.c.generation == server.generation, **changes)

        return await self.rt.db.write(work)

    async def _detach(self, server: Server, lost: Iterable[str]) -> bool:
        """Somebody deleted ports, or gave them to another device: the guest loses their NICs."""
        if server.operation_id is not None:
            # It may be what takes them away.
            return False
        for port_id in sorted(lost):
            ctx = RequestContext(
                user_id=server.user_id,
                project_id=server.project_id,
                roles=frozenset(),
                request_id=f"req-{self.rt.world.uuid()}",
                is_admin=True,
            )
            log.info("a server's port is gone", server=server.uuid, port=port_id)
            await attach.detach(self.rt, ctx, server, port_id)
        return True


async def _servers(tx: Tx, query: sa.Select[Any]) -> list[Server]:
    return [servers.from_row(row) for row in await tx.execute(query)]


def _in_order(server: Server, found: list[Document]) -> list[Document]:
    """As the guest has them, new ones last."""
    places = {nic.port_id: number for number, nic in enumerate(network_info.nics_of(server.network_info))}
    return sorted(found, key=lambda port: (places.get(port["id"], len(places)), port["id"]))


def _changes(server: Server, found: list[Document], facts: ports.Facts) -> dict[str, Any]:
    """The columns of the server's row that are out of date."""
    nics, names = ports.told(server, found, facts)
    values = network_info.columns(nics, names or None)
    same = {
        "network_info": network_info.nics_of(server.network_info) == nics,
        "addresses": server.addresses == values["addresses"],
        "security_groups": server.security_groups == values.get("security_groups"),
    }
    return {column: value for column, value in values.items() if not same[column]}
