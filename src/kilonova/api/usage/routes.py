from __future__ import annotations

from kilonova.api.routing import Action, Route, route
from kilonova.api.usage import audit, tenant

_USAGE = "/os-simple-tenant-usage"
_AUDIT = "/os-instance_usage_audit_log"
_AUDIT_RULE = "os_compute_api:os-instance-usage-audit-log"

ROUTES: tuple[Route | Action, ...] = (
    route(
        "GET",
        _USAGE,
        tenant.index,
        "simple_tenant_usage:index",
        query=tenant.LIST,
        policy="os_compute_api:os-simple-tenant-usage:list",
    ),
    # Whose usage it is decides policy, so that the handler asks it.
    route("GET", f"{_USAGE}/{{id}}", tenant.show, "simple_tenant_usage:show", query=tenant.SHOW),
    route("GET", _AUDIT, audit.index, "instance_usage_audit_log:index", policy=f"{_AUDIT_RULE}:list"),
    route("GET", f"{_AUDIT}/{{id}}", audit.show, "instance_usage_audit_log:show", policy=f"{_AUDIT_RULE}:show"),
)
