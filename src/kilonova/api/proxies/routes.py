"""The old interfaces to Networking; from 2.36 on there are none."""

from __future__ import annotations

from kilonova.api.fields import OPEN_QUERY, Field, QuerySchema
from kilonova.api.proxies import floating_ips, networks, security_groups
from kilonova.api.routing import Action, Handler, Route, route
from kilonova.api.servers.schemas import LIMIT, many

_UNTIL = "2.35"
_NETWORKS = "os_compute_api:os-networks"
_TENANT = "os_compute_api:os-tenant-networks"
_FLOATING = "os_compute_api:os-floating-ips"
_GROUPS = "os_compute_api:os-security-groups"
_LIST = QuerySchema(
    Field("limit", many(LIMIT)),
    Field("offset", many(LIMIT)),
    Field("all_tenants", many({"type": "string"})),
    open_until="2.104",
)


def _get(path: str, handler: Handler, operation: str, policy: str, query: QuerySchema = OPEN_QUERY) -> Route:
    return route("GET", path, handler, operation, until=_UNTIL, query=query, policy=policy)


ROUTES: tuple[Route | Action, ...] = (
    _get("/os-networks", networks.index, "networks:index", f"{_NETWORKS}:list"),
    _get("/os-networks/{id}", networks.show, "networks:show", f"{_NETWORKS}:show"),
    _get("/os-tenant-networks", networks.tenant_index, "tenant-networks:index", f"{_TENANT}:list"),
    _get("/os-tenant-networks/{id}", networks.tenant_show, "tenant-networks:show", f"{_TENANT}:show"),
    _get("/os-floating-ip-pools", networks.pools, "floating-ip-pools:index", "os_compute_api:os-floating-ip-pools"),
    _get("/os-floating-ips", floating_ips.index, "floating-ips:index", f"{_FLOATING}:list"),
    _get("/os-floating-ips/{id}", floating_ips.show, "floating-ips:show", f"{_FLOATING}:show"),
    route(
        "POST", "/os-floating-ips", floating_ips.create, "floating-ips:create", until=_UNTIL,
        body=floating_ips.CREATE, policy=f"{_FLOATING}:create",
    ),
    route(
        "DELETE", "/os-floating-ips/{id}", floating_ips.delete, "floating-ips:delete", until=_UNTIL, status=202,
        policy=f"{_FLOATING}:delete",
    ),
    _get("/os-security-groups", security_groups.index, "security-groups:index", f"{_GROUPS}:get", _LIST),
    _get("/os-security-groups/{id}", security_groups.show, "security-groups:show", f"{_GROUPS}:show"),
    route(
        "POST", "/os-security-groups", security_groups.create, "security-groups:create", until=_UNTIL,
        body=security_groups.GROUP, policy=f"{_GROUPS}:create",
    ),
    route(
        "PUT", "/os-security-groups/{id}", security_groups.update, "security-groups:update", until=_UNTIL,
        body=security_groups.GROUP, policy=f"{_GROUPS}:update",
    ),
    route(
        "DELETE", "/os-security-groups/{id}", security_groups.delete, "security-groups:delete", until=_UNTIL,
        status=202, policy=f"{_GROUPS}:delete",
    ),
    route(
        "POST", "/os-security-group-rules", security_groups.create_rule, "security-group-rules:create", until=_UNTIL,
        body=security_groups.RULE, policy=f"{_GROUPS}:rule:create",
    ),
    route(
        "DELETE", "/os-security-group-rules/{id}", security_groups.delete_rule, "security-group-rules:delete",
        until=_UNTIL, status=202, policy=f"{_GROUPS}:rule:delete",
    ),
)  # fmt: skip
