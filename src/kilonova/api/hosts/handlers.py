"""Hosts, as the API had them up to 2.42: listed with their services, shown with what is used of them.

Power, maintenance and enabling go through the hypervisor there, and none that this service drives can do it.
"""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import OPEN_QUERY, Field, Object, QuerySchema, Schema
from kilonova.api.requests import Request
from kilonova.api.routing import Action, Route, route
from kilonova.api.types import TEXT, multi
from kilonova.compute.hosts import list_services, zone_of
from kilonova.db import hosts as rows
from kilonova.db.engine import Tx
from kilonova.db.hosts import COMPUTE, HostTotals
from kilonova.errors import NotFound, NotImplementedHere

_UNTIL = "2.42"
_ALL, _ONE = "/os-hosts", "/os-hosts/{id}"
_RULE = "os_compute_api:os-hosts"
_APIS = ("nova-osapi_compute", "nova-metadata")
_SWITCH = {"type": "string", "enum": ["enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]}

LIST = QuerySchema(Field("zone", multi(TEXT)), open_until="2.104")
UPDATE = Schema(
    Object(
        Field("status", _SWITCH),
        Field("maintenance_mode", _SWITCH),
        extra={"anyOf": [{"required": ["status"]}, {"required": ["maintenance_mode"]}]},
    )
)


async def index(request: Request) -> dict[str, Any]:
    zone = request.query.last("zone")
    shown = []
    for service in await list_services(request.runtime):
        if not service.disabled and service.binary not in _APIS:
            of = zone_of(request.runtime, service)
            if not zone or zone == of:
                name = service.binary.removeprefix("nova-")
                shown.append({"host_name": service.host, "service": name, "zone": of})
    return {"hosts": shown}


async def show(request: Request) -> dict[str, Any]:
    host = request.params["id"]

    async def work(tx: Tx) -> tuple[rows.Hypervisor | None, dict[str, HostTotals]]:
        down = request.runtime.settings.service_down_time
        return await rows.first_of_host(tx, host, service_down_time=down), await rows.used_by_project(tx, host)

    node, by_project = await request.runtime.db.read(work)
    if node is None:
        raise NotFound(f"Compute host {host} could not be found.")
    settings = request.runtime.settings
    total = HostTotals(node.vcpus, node.memory_mb, node.local_gb)
    used = HostTotals(
        node.vcpus_used,
        node.memory_mb_used + settings.reserved_host_memory_mb,
        node.local_gb_used + settings.reserved_host_disk_mb // 1024,
    )
    sums = [sum(column) for column in zip(*by_project.values(), strict=True)] or [0, 0, 0]
    lines = {"(total)": total, "(used_now)": used, "(used_max)": HostTotals(*sums), **by_project}
    return {
        "host": [
            {
                "resource": {
                    "host": host,
                    "project": project,
                    "cpu": line.vcpus,
                    "memory_mb": line.memory_mb,
                    "disk_gb": line.disk_gb,
                }
            }
            for project, line in lines.items()
        ]
    }


async def refuse(request: Request) -> None:
    host = request.params["id"]
    if not await list_services(request.runtime, host=host, binary=COMPUTE):
        raise NotFound(f"Compute host {host} could not be found.")
    raise NotImplementedHere("The requested functionality is not supported.")


def _power(doing: str, rule: str) -> Route:
    return route(
        "GET", f"{_ONE}/{doing}", refuse, f"hosts:{doing}", until=_UNTIL, query=OPEN_QUERY, policy=f"{_RULE}:{rule}"
    )


ROUTES: tuple[Route | Action, ...] = (
    route("GET", _ALL, index, "hosts:index", until=_UNTIL, query=LIST, policy=f"{_RULE}:list"),
    route("GET", _ONE, show, "hosts:show", until=_UNTIL, query=OPEN_QUERY, policy=f"{_RULE}:show"),
    route("PUT", _ONE, refuse, "hosts:update", until=_UNTIL, body=UPDATE, policy=f"{_RULE}:update"),
    _power("startup", "start"),
    _power("shutdown", "shutdown"),
    _power("reboot", "reboot"),
)
