"""`PUT /servers/{id}` and `DELETE /servers/{id}`."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find, view_of
from kilonova.api.servers.view import Kind
from kilonova.compute.servers.soft_delete import delete as delete_server
from kilonova.compute.servers.update import Pin
from kilonova.compute.servers.update import update as update_server

COLUMNS = {
    "description": "display_description",
    "hostname": "hostname",
    "accessIPv4": "access_ip_v4",
    "accessIPv6": "access_ip_v6",
    "OS-DCF:diskConfig": "disk_config",
}
"""Fields of update and rebuild that go into the row as they are."""


async def update(request: Request) -> Any:
    server = await find(request, "os_compute_api:servers:update", parameter="id")
    wanted = request.body["server"]
    changes = {column: wanted[field] for field, column in COLUMNS.items() if field in wanted}
    if "name" in wanted:
        changes["display_name"] = wanted["name"].strip()
    zone = wanted.get("pinned_availability_zone", Pin.LEAVE)
    await update_server(request.runtime, server, changes, zone=zone)
    return await view_of(request, server.uuid, Kind.UPDATE)


async def delete(request: Request) -> None:
    server = await find(request, "os_compute_api:servers:delete", parameter="id")
    await delete_server(request.runtime, request.context, server)
