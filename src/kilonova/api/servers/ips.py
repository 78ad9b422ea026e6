"""`/servers/{server_id}/ips`: addresses by network."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.api.servers.view import plain_addresses
from kilonova.errors import NotFound


async def index(request: Request) -> Any:
    server = await find(request, "os_compute_api:ips:index")
    return {"addresses": plain_addresses(server.addresses)}


async def show(request: Request) -> Any:
    server = await find(request, "os_compute_api:ips:show")
    network = request.params["network"]
    addresses = plain_addresses(server.addresses)
    if network not in addresses:
        raise NotFound("Instance is not a member of specified network")
    return {network: addresses[network]}
