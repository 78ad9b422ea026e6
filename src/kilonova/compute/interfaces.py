"""A server's ports and security groups, asked of Networking."""

from __future__ import annotations

from kilonova.compute import network_info
from kilonova.db.servers import Server
from kilonova.networking import Document
from kilonova.runtime import Runtime


async def of_server(rt: Runtime, server: Server) -> list[Document]:
    """Its ports in the guest's order; none in a cloud without Networking. Raises Unavailable."""
    if rt.network is None:
        return []
    found = await rt.network.find("ports", {"device_id": server.uuid})
    places = {nic.port_id: number for number, nic in enumerate(network_info.nics_of(server.network_info))}
    return sorted(found, key=lambda port: (places.get(port["id"], len(places)), port["id"]))


def tags(server: Server) -> dict[str, str | None]:
    """By port."""
    return {nic.port_id: nic.tag for nic in network_info.nics_of(server.network_info)}


async def security_groups(rt: Runtime, server: Server) -> list[Document]:
    """Those of its ports, each once, by project and name."""
    if rt.network is None:
        return []
    ids = {group for port in await of_server(rt, server) for group in port.get("security_groups") or ()}
    found = await rt.network.find("security-groups", {"id": sorted(ids)}) if ids else []
    return sorted(found, key=lambda group: (group.get("project_id", ""), group["name"]))
