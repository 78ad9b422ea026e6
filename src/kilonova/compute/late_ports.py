"""Ports that came too late: made or bound anew by a process that was paused, after others had given them back.

Networking cannot hold such a process back. While a port is there, nobody can make its like: the MAC is taken. What a
late process can bring back is only what a detach, or an attach that failed, has let go.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
import structlog

from kilonova.compute import network_info
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import operations
from kilonova.db.tables.operations import OPEN
from kilonova.networking import Document
from kilonova.runtime import Runtime
from kilonova.workflows.steps import ports

log = structlog.get_logger()

KINDS = ("attach_interface", "detach_interface")
BOOT_PLACES = 64
"""Ports of a boot are named by their number; more than this no guest has."""


async def give_back(rt: Runtime, server: Server, found: list[Document]) -> list[Document]:
    """What of `found` the server has. Ports that came too late are deleted, or unbound when they are the user's."""
    assert rt.network is not None
    if not _unknown(server, found):
        return found

    async def look(tx: Tx) -> tuple[Server | None, list[dict[str, Any]]]:
        # After the ports were looked at: an attach that ended meanwhile has put its port into the row.
        c = operations.c
        query = sa.select(c.data).where(c.server_uuid == server.uuid, c.kind.in_(KINDS), c.state.not_in(OPEN))
        ended = [row.data for row in await tx.execute(query)]
        return await servers.get(tx, server.uuid), ended

    now, ended = await rt.db.read(look)
    if now is None or now.operation_id is not None:
        return found
    late = [port for port in _unknown(now, found) if any(_let_go(server.uuid, port, data) for data in ended)]
    for port in late:
        log.warning("a port came back after it was let go", server=server.uuid, port=port["id"])
        if any(data.get("port_id") == port["id"] or _asked(data) == port["id"] for data in ended):
            await ports.unbind(rt.network, port["id"], server.uuid)
        else:
            await ports.delete_ours(rt.network, port["id"], server.uuid)
    return [port for port in found if port not in late]


def _unknown(server: Server, found: list[Document]) -> list[Document]:
    known = {nic.port_id for nic in network_info.nics_of(server.network_info)} | ports.foreign_ports(server)
    return [port for port in found if port["id"] not in known]


def _let_go(server_uuid: str, port: Document, data: dict[str, Any]) -> bool:
    """Whether it is what the ended operation with this data gave back."""
    places = [str(number) for number in range(BOOT_PLACES)]
    if request := data.get("request"):
        if request["port_id"]:
            return bool(request["port_id"] == port["id"])
        places = [request["place"]]
    elif data.get("port_id") == port["id"]:
        return True
    # The late one may have met a MAC that was taken, and have gone on to the next.
    return any(
        port["mac_address"] == ports.mac_of(server_uuid, place, n) for place in places for n in range(ports.SALTS)
    )


def _asked(data: dict[str, Any]) -> Any:
    return (data.get("request") or {}).get("port_id")
