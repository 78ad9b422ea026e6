"""What is cached of a server's ports in its row, brought up to date from Networking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from kilonova.compute import attach, late_ports, network_info
from kilonova.context import on_behalf_of
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.networking import Document
from kilonova.runtime import Runtime
from kilonova.workflows.steps import ports

log = structlog.get_logger()


async def refresh(rt: Runtime, server_uuid: str) -> bool:
    """Look now. False when the server was changed meanwhile, so that what was seen may be out of date."""
    assert rt.network is not None
    # The row first: what changes after this moment changes its generation too.
    server = await rt.db.read(lambda tx: servers.get(tx, server_uuid))
    if server is None or server.deleting or server.host is None:
        return True
    found = await rt.network.find("ports", {"device_id": server_uuid})
    found = in_order(server, await late_ports.give_back(rt, server, found))
    lost = {nic.port_id for nic in network_info.nics_of(server.network_info)} - {port["id"] for port in found}
    if lost and server.vm_state in attach.FROM:
        return await _detach(rt, server, lost)
    values = changes(server, found, await ports.look_up(rt.network, found, floating=True))
    if not values:
        return True

    async def work(tx: Tx) -> bool:
        return await servers.update(tx, server_uuid, instances.c.generation == server.generation, **values)

    return await rt.db.write(work)


async def _detach(rt: Runtime, server: Server, lost: Iterable[str]) -> bool:
    """Somebody deleted ports, or gave them to another device: the guest loses their NICs."""
    if server.operation_id is not None:
        # It may be what takes them away.
        return False
    for port_id in sorted(lost):
        ctx = on_behalf_of(server.user_id, server.project_id, f"req-{rt.world.uuid()}")
        log.info("a server's port is gone", server=server.uuid, port=port_id)
        await attach.detach(rt, ctx, server, port_id)
    return True


def in_order(server: Server, found: list[Document]) -> list[Document]:
    """As the guest has them, new ones last."""
    places = {nic.port_id: number for number, nic in enumerate(network_info.nics_of(server.network_info))}
    return sorted(found, key=lambda port: (places.get(port["id"], len(places)), port["id"]))


def changes(server: Server, found: list[Document], facts: ports.Facts) -> dict[str, Any]:
    """The columns of the server's row that are out of date."""
    nics, names = ports.told(server, found, facts)
    values = network_info.columns(nics, names or None)
    same = {
        "network_info": network_info.nics_of(server.network_info) == nics,
        "addresses": server.addresses == values["addresses"],
        "security_groups": server.security_groups == values.get("security_groups"),
    }
    return {column: value for column, value in values.items() if not same[column]}
