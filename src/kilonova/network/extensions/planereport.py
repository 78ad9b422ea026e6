"""What the role `network` tells and asks beside the Networking API. Loaded by Neutron's process.

POST /v2.0/plane-reports: what the hosts' planes have done. GET /v2.0/plane-bindings: every inactive binding of a port
({id, port_id, host}): for ports, Neutron itself shows them one port at a time only.
"""

from __future__ import annotations

from typing import Any

from neutron.api import extensions, wsgi
from neutron.api.v2 import resource
from neutron_lib.api import extensions as api_extensions
from neutron_lib.api import faults
from neutron_lib.plugins import directory
from webob import exc

STATUSES = {
    "ports": frozenset({"ACTIVE", "DOWN"}),
    "routers": frozenset({"ACTIVE", "DOWN", "ERROR"}),
    "floatingips": frozenset({"ACTIVE", "DOWN", "ERROR"}),
}


class PlaneReportController(wsgi.Controller):  # type: ignore[misc]  # Neutron's: untyped
    """For services only: users' policies do not name it."""

    def create(self, request: Any, body: Any, **_: Any) -> dict[str, Any]:
        context = _service(request)
        report = _checked(body)
        plugin = directory.get_plugin("KILONOVA_PLANE")
        return {"plane_report": {"unknown": plugin.report(context, **report)}}


class PlaneBindingController(wsgi.Controller):  # type: ignore[misc]  # Neutron's: untyped
    """As above."""

    def index(self, request: Any, **_: Any) -> dict[str, Any]:
        context = _service(request)
        return {"plane_bindings": directory.get_plugin("KILONOVA_PLANE").inactive_bindings(context)}


def _service(request: Any) -> Any:
    """The context to work in. Raises HTTPForbidden for anybody else."""
    context = request.context
    if not (context.is_admin or context.is_service_role):
        raise exc.HTTPForbidden("Only a service may speak for the planes.")
    return context.elevated()


def _checked(body: Any) -> dict[str, Any]:
    report = body.get("plane_report") if isinstance(body, dict) else None
    if not isinstance(report, dict) or not set(report) <= set(STATUSES):
        raise exc.HTTPBadRequest("plane_report: expected an object with ports, routers, floatingips.")
    ports = report.get("ports", [])
    if not isinstance(ports, list) or not all(
        isinstance(port, dict) and set(port) == {"id", "host", "status"} and port["status"] in STATUSES["ports"]
        for port in ports
    ):
        raise exc.HTTPBadRequest("plane_report.ports: expected a list of {id, host, status: ACTIVE or DOWN}.")
    for kind in ("routers", "floatingips"):
        found = report.get(kind, {})
        if not isinstance(found, dict) or not set(found.values()) <= STATUSES[kind]:
            raise exc.HTTPBadRequest(f"plane_report.{kind}: expected statuses ({', '.join(STATUSES[kind])}) by id.")
    return {"ports": ports, "routers": report.get("routers", {}), "floatingips": report.get("floatingips", {})}


class Planereport(api_extensions.ExtensionDescriptor):  # type: ignore[misc]  # Neutron's: untyped
    @classmethod
    def get_name(cls) -> str:
        return "Reports of the planes on the hosts"

    @classmethod
    def get_alias(cls) -> str:
        return "plane-report"

    @classmethod
    def get_description(cls) -> str:
        return "What the data planes on the hosts have wired, told by the service that speaks to them."

    @classmethod
    def get_updated(cls) -> str:
        return "2026-01-01T00:00:00-00:00"

    @classmethod
    def get_resources(cls) -> list[Any]:
        controllers = {"plane-reports": PlaneReportController(), "plane-bindings": PlaneBindingController()}
        return [
            extensions.ResourceExtension(path, resource.Resource(controller, faults.FAULT_MAP))
            for path, controller in controllers.items()
        ]
