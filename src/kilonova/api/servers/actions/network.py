"""Actions on a server's addresses and security groups, most of them at old versions only."""

from __future__ import annotations

from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.compute import addresses
from kilonova.db import servers
from kilonova.errors import Conflict, Invalid, NotFound

_GROUPS = "os_compute_api:os-security-groups"
_FLOATING = "os_compute_api:os-floating-ips"


async def add_fixed_ip(request: Request) -> None:
    server = await find(request, "os_compute_api:os-multinic:add", parameter="id")
    network_id = str(request.body["addFixedIp"]["networkId"])
    await addresses.add_fixed_ip(request.runtime, request.context, server, network_id)


async def remove_fixed_ip(request: Request) -> None:
    server = await find(request, "os_compute_api:os-multinic:remove", parameter="id")
    await addresses.remove_fixed_ip(request.runtime, request.context, server, request.body["removeFixedIp"]["address"])


async def add_security_group(request: Request) -> None:
    server = await find(request, f"{_GROUPS}:add", parameter="id")
    await addresses.add_security_group(request.runtime, request.context, server, _name(request, "addSecurityGroup"))


async def remove_security_group(request: Request) -> None:
    server = await find(request, f"{_GROUPS}:remove", parameter="id")
    await addresses.remove_security_group(
        request.runtime, request.context, server, _name(request, "removeSecurityGroup")
    )


def _name(request: Request, key: str) -> str:
    name = str(request.body[key]["name"])
    if not name.strip():
        raise Invalid("Security group name cannot be empty")
    return name


async def add_floating_ip(request: Request) -> None:
    server = await find(request, f"{_FLOATING}:add", parameter="id")
    asked = request.body["addFloatingIp"]
    await addresses.associate(request.runtime, request.context, server, asked["address"], asked.get("fixed_address"))


async def remove_floating_ip(request: Request) -> None:
    """Looks at the floating IP first, and asks policy about the server that it leads to."""
    rt, address, uuid = request.runtime, request.body["removeFloatingIp"]["address"], request.params["id"]
    floating = await addresses.floating_ip(rt, request.context, address)
    if floating is None:
        raise NotFound(f"Floating IP not found for address {address}.")
    device = await addresses.device_of(rt, floating)
    server = await rt.db.read(lambda tx: servers.get(tx, device)) if device is not None else None
    request.authorize(f"{_FLOATING}:remove", {"project_id": server.project_id} if server is not None else {})
    if server is None or server.uuid != uuid:
        raise Conflict(f"Floating IP {address} is not associated with instance {uuid}.")
    await addresses.disassociate(rt, floating, server.uuid)
