"""`os-interface` and `os-security-groups` of a server: its ports and their groups, as Networking has them."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.proxies.security_groups import views_of
from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.compute import attach, interfaces
from kilonova.db.servers import Server
from kilonova.errors import Invalid, KilonovaError, NotFound
from kilonova.networking import Document

_RULE = "os_compute_api:os-attach-interfaces"


async def index(request: Request) -> Any:
    server = await find(request, f"{_RULE}:list")
    ports = await interfaces.of_server(request.runtime, server)
    tags = interfaces.tags(server)
    return {"interfaceAttachments": [_view(request, port, tags.get(port["id"])) for port in ports]}


async def show(request: Request) -> Any:
    return await _show(request, await find(request, f"{_RULE}:show"), request.params["id"])


async def _show(request: Request, server: Server, port_id: str) -> Any:
    port = next((p for p in await interfaces.of_server(request.runtime, server) if p["id"] == port_id), None)
    if port is None:
        raise NotFound(f"Instance {server.uuid} does not have a port with id {port_id}")
    return {"interfaceAttachment": _view(request, port, interfaces.tags(server).get(port_id))}


async def create(request: Request) -> Any:
    """Answers when the guest has the NIC."""
    server = await find(request, f"{_RULE}:create")
    asked = (request.body or {}).get("interfaceAttachment", {})
    network_id, port_id = asked.get("net_id"), asked.get("port_id")
    addresses = asked.get("fixed_ips") or [{}]
    fixed_ip = addresses[0].get("ip_address")
    if network_id and port_id:
        raise Invalid("Must not input both network_id and port_id")
    if fixed_ip and not network_id:
        raise Invalid("Must input network_id when request IP address")
    operation_id = await attach.attach(
        request.runtime,
        request.context,
        server,
        network_id=network_id or None,
        port_id=port_id or None,
        fixed_ip=fixed_ip,
        tag=asked.get("tag"),
        external_allowed=request.allowed("network:attach_external_network"),
    )
    timeout = request.runtime.settings.attach_timeout
    if not await attach.ended(request.runtime, operation_id, timeout):
        raise KilonovaError(
            f"The interface is not attached after {timeout:.0f} seconds; the server's actions tell how it goes on."
        )
    port_id = await attach.attached_port(request.runtime, operation_id)
    return await _show(request, await find(request, f"{_RULE}:show"), port_id)


async def delete(request: Request) -> None:
    server = await find(request, f"{_RULE}:delete")
    await attach.detach(request.runtime, request.context, server, request.params["id"])


def _view(request: Request, port: Document, tag: str | None) -> dict[str, Any]:
    view = {
        "net_id": port["network_id"],
        "port_id": port["id"],
        "mac_addr": port["mac_address"],
        "port_state": port["status"],
        "fixed_ips": port["fixed_ips"],
    }
    return view | {"tag": tag} if request.version >= versions.INTERFACE_TAG_SHOWN else view


async def security_groups(request: Request) -> Any:
    server = await find(request, "os_compute_api:os-security-groups:list")
    groups = await interfaces.security_groups(request.runtime, server)
    return {"security_groups": await views_of(request, groups)}
