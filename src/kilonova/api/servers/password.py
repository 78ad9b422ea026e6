"""`/servers/{server_id}/os-server-password`: what the guest has stored, encrypted, for whoever has the private key."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.compute import guest_password

_RULE = "os_compute_api:os-server-password"


async def show(request: Request) -> Any:
    server = await find(request, f"{_RULE}:show")
    return {"password": server.guest_password or ""}


async def clear(request: Request) -> None:
    server = await find(request, f"{_RULE}:clear")
    await guest_password.clear(request.runtime, server.uuid)
