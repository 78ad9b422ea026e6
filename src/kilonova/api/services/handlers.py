"""Services: listed, enabled, disabled, forced down, deleted.

Before 2.53 a PUT goes to the name of what is wanted and says host and binary; since then to the service's UUID.
"""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.errors import HttpError
from kilonova.api.fields import Out, View
from kilonova.api.requests import Request
from kilonova.api.types import boolean
from kilonova.api.validation import is_uuid, row_id
from kilonova.compute import hosts
from kilonova.db.hosts import Service, service_of, service_row, service_uuid
from kilonova.errors import Invalid, NotFound


def _zone(service: Service, request: Request) -> str:
    return hosts.zone_of(request.runtime, service)


def _status(service: Service, _: Request) -> str:
    return "disabled" if service.disabled else "enabled"


def _state(service: Service, _: Request) -> str:
    return "up" if service.up else "down"


def _updated_at(service: Service, _: Request) -> str | None:
    seen = service.seen_at
    return seen.isoformat(timespec="microseconds") if seen else None


VIEW = View(
    Out("binary", "binary"),
    Out("host", "host"),
    Out("id", "id", until="2.52"),
    Out("id", "uuid", since="2.53"),
    Out("zone", _zone),
    Out("status", _status),
    Out("state", _state),
    Out("updated_at", _updated_at),
    Out("disabled_reason", "disabled_reason"),
    Out("forced_down", "forced_down", since="2.11"),
)


async def index(request: Request) -> dict[str, Any]:
    found = await hosts.list_services(
        request.runtime, host=request.query.last("host"), binary=request.query.last("binary")
    )
    render = VIEW.at(request.version)
    return {"services": [render(service, request) for service in found]}


async def update(request: Request) -> dict[str, Any]:
    """PUT /os-services/{uuid}."""
    uuid = request.params["id"]
    if not is_uuid(uuid):
        raise Invalid(f"Invalid uuid {uuid}")
    request.authorize("os_compute_api:os-services:update")
    changed = await hosts.update_service(
        request.runtime,
        service_uuid(uuid),
        NotFound(f"Service {uuid} could not be found."),
        lambda: _wanted(request.body),
    )
    return {"service": VIEW.at(request.version)(changed, request)}


def _wanted(body: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if body.get("status") == "enabled":
        if body.get("disabled_reason"):
            raise Invalid("Specifying 'disabled_reason' with status 'enabled' is invalid.")
        values |= {"disabled": False, "disabled_reason": None}
    elif body.get("status") == "disabled":
        values |= {"disabled": True, "disabled_reason": body.get("disabled_reason")}
    if "forced_down" in body:
        values["forced_down"] = boolean(body["forced_down"])
    if not values:
        raise Invalid("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    return values


async def update_by_name(request: Request) -> dict[str, Any]:
    """PUT /os-services/enable, disable, disable-log-reason and force-down."""
    body, what = request.body, request.params["id"]
    shown = {"host": body["host"], "binary": body["binary"]}
    if what == "enable":
        values = {"disabled": False, "disabled_reason": None}
        shown["status"] = "enabled"
    elif what == "disable":
        values = {"disabled": True, "disabled_reason": None}
        shown["status"] = "disabled"
    elif what == "disable-log-reason":
        if "disabled_reason" not in body:
            raise Invalid("Missing disabled reason field")
        values = {"disabled": True, "disabled_reason": body["disabled_reason"]}
        shown |= {"status": "disabled", "disabled_reason": body["disabled_reason"]}
    elif what == "force-down" and request.version >= versions.SERVICE_FORCED_DOWN:
        if "forced_down" not in body:
            raise Invalid("Missing forced_down field")
        values = {"forced_down": boolean(body["forced_down"])}
        shown |= values
    else:
        raise HttpError(404, "Unknown action")
    host, binary = body["host"], body["binary"]
    hosts.require_compute(binary)
    missing = NotFound(f"Could not find binary {binary} on host {host}.")
    await hosts.update_service(request.runtime, service_of(host, binary), missing, lambda: values)
    return {"service": shown}


async def delete(request: Request) -> None:
    given = request.params["id"]
    missing = NotFound(f"Service {given} not found.")
    if request.version >= versions.UUIDS_FOR_HOSTS:
        if not is_uuid(given):
            raise Invalid(f"Invalid uuid {given}")
        identity = service_uuid(given)
    else:
        identity = service_row(row_id(given))
    await hosts.delete_service(request.runtime, identity, missing)
