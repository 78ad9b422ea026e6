"""The table of all operations."""

from __future__ import annotations

import dataclasses

from kilonova.api import external_events, version_documents
from kilonova.api.aggregates.routes import ROUTES as AGGREGATES
from kilonova.api.certificates.handlers import ROUTES as CERTIFICATES
from kilonova.api.fields import OPEN_QUERY
from kilonova.api.flavors import access, extra_specs, manage
from kilonova.api.flavors import list as flavor_list
from kilonova.api.flavors import schemas as flavor_schemas
from kilonova.api.flavors import show as flavor_show
from kilonova.api.hosts.handlers import ROUTES as HOSTS
from kilonova.api.hypervisors import handlers as hypervisors
from kilonova.api.hypervisors import schemas as hypervisor_schemas
from kilonova.api.keypairs import handlers as keypairs
from kilonova.api.keypairs import schemas as keypair_schemas
from kilonova.api.limits import handlers as limits
from kilonova.api.migrations.routes import ROUTES as MIGRATIONS
from kilonova.api.proxies.routes import ROUTES as NETWORK_PROXIES
from kilonova.api.quotas.routes import ROUTES as QUOTAS
from kilonova.api.routing import Action, Route, action, route
from kilonova.api.servergroups.routes import ROUTES as SERVER_GROUPS
from kilonova.api.servers.routes import ROUTES as SERVERS
from kilonova.api.services import handlers as services
from kilonova.api.services import schemas as service_schemas
from kilonova.api.unbuilt import UNBUILT
from kilonova.api.usage.routes import ROUTES as USAGE
from kilonova.api.zones import handlers as zones

_FLAVOR = "/flavors/{id}"
_SPECS = "/flavors/{flavor_id}/os-extra_specs"
_SPEC = "/flavors/{flavor_id}/os-extra_specs/{id}"
_MANAGE = "os_compute_api:os-flavor-manage"
_ACCESS = "os_compute_api:os-flavor-access"
_EXTRA = "os_compute_api:os-flavor-extra-specs"

VERSIONS: tuple[Route | Action, ...] = (
    route("GET", "/", version_documents.current, "versions:current"),
    route("GET", "/versions/{id}", version_documents.show, "versions:show"),
)

FLAVORS: tuple[Route | Action, ...] = (
    route("GET", "/flavors", flavor_list.brief, "flavors:index", query=flavor_schemas.LIST),
    route("GET", "/flavors/detail", flavor_list.detail, "flavors:detail", query=flavor_schemas.LIST),
    route("GET", _FLAVOR, flavor_show.show, "flavors:show"),
    route("POST", "/flavors", manage.create, "flavors:create", body=flavor_schemas.CREATE, policy=f"{_MANAGE}:create"),
    route(
        "PUT",
        _FLAVOR,
        manage.update,
        "flavors:update",
        since="2.55",
        body=flavor_schemas.UPDATE,
        policy=f"{_MANAGE}:update",
    ),
    route("DELETE", _FLAVOR, manage.delete, "flavors:delete", status=202, policy=f"{_MANAGE}:delete"),
    route("GET", "/flavors/{flavor_id}/os-flavor-access", access.show, "flavor_access:index", policy=_ACCESS),
    action(
        f"{_FLAVOR}/action",
        "addTenantAccess",
        access.add,
        "flavor_access:add",
        body=flavor_schemas.ADD_ACCESS,
        policy=f"{_ACCESS}:add_tenant_access",
    ),
    action(
        f"{_FLAVOR}/action",
        "removeTenantAccess",
        access.remove,
        "flavor_access:remove",
        body=flavor_schemas.REMOVE_ACCESS,
        policy=f"{_ACCESS}:remove_tenant_access",
    ),
    route("GET", _SPECS, extra_specs.index, "flavor_extra_specs:index", policy=f"{_EXTRA}:index"),
    route("GET", _SPEC, extra_specs.show, "flavor_extra_specs:show", policy=f"{_EXTRA}:show"),
    route(
        "POST",
        _SPECS,
        extra_specs.create,
        "flavor_extra_specs:create",
        body=flavor_schemas.CREATE_SPECS,
        policy=f"{_EXTRA}:create",
    ),
    route(
        "PUT",
        _SPEC,
        extra_specs.update,
        "flavor_extra_specs:update",
        body=flavor_schemas.UPDATE_SPEC,
        policy=f"{_EXTRA}:update",
    ),
    route("DELETE", _SPEC, extra_specs.delete, "flavor_extra_specs:delete", policy=f"{_EXTRA}:delete"),
)

KEY_PAIRS: tuple[Route | Action, ...] = (
    route("GET", "/os-keypairs", keypairs.index, "keypairs:index", query=keypair_schemas.LIST),
    route("GET", "/os-keypairs/{id}", keypairs.show, "keypairs:show", query=keypair_schemas.ONE),
    route(
        "POST",
        "/os-keypairs",
        keypairs.create,
        "keypairs:create",
        body=keypair_schemas.CREATE,
        status={"2.1": 200, "2.2": 201},
    ),
    route(
        "DELETE",
        "/os-keypairs/{id}",
        keypairs.delete,
        "keypairs:delete",
        query=keypair_schemas.ONE,
        status={"2.1": 202, "2.2": 204},
    ),
)

LIMITS: tuple[Route | Action, ...] = (
    route("GET", "/limits", limits.show, "limits:index", query=limits.QUERY, policy="os_compute_api:limits"),
)

_ZONE = "os_compute_api:os-availability-zone"
ZONES: tuple[Route | Action, ...] = (
    route("GET", "/os-availability-zone", zones.index, "availability_zone:index", policy=f"{_ZONE}:list"),
    route("GET", "/os-availability-zone/detail", zones.detail, "availability_zone:detail", policy=f"{_ZONE}:detail"),
)

_NODES = "/os-hypervisors"
_NODE = "/os-hypervisors/{id}"
_HYPERVISOR = "os_compute_api:os-hypervisors"
HYPERVISORS: tuple[Route | Action, ...] = (
    route(
        "GET",
        _NODES,
        hypervisors.index,
        "hypervisors:index",
        query=hypervisor_schemas.LIST,
        policy=f"{_HYPERVISOR}:list",
    ),
    route(
        "GET",
        f"{_NODES}/detail",
        hypervisors.detail,
        "hypervisors:detail",
        query=hypervisor_schemas.LIST,
        policy=f"{_HYPERVISOR}:list-detail",
    ),
    route(
        "GET",
        f"{_NODES}/statistics",
        hypervisors.statistics,
        "hypervisors:statistics",
        until="2.87",
        query=OPEN_QUERY,
        policy=f"{_HYPERVISOR}:statistics",
    ),
    route(
        "GET", _NODE, hypervisors.show, "hypervisors:show", query=hypervisor_schemas.SHOW, policy=f"{_HYPERVISOR}:show"
    ),
    route(
        "GET",
        f"{_NODE}/uptime",
        hypervisors.uptime,
        "hypervisors:uptime",
        until="2.87",
        query=OPEN_QUERY,
        policy=f"{_HYPERVISOR}:uptime",
    ),
    route(
        "GET",
        f"{_NODE}/search",
        hypervisors.search,
        "hypervisors:search",
        until="2.52",
        query=OPEN_QUERY,
        policy=f"{_HYPERVISOR}:search",
    ),
    route(
        "GET",
        f"{_NODE}/servers",
        hypervisors.servers,
        "hypervisors:servers",
        until="2.52",
        query=OPEN_QUERY,
        policy=f"{_HYPERVISOR}:servers",
    ),
)

_SERVICE = "os_compute_api:os-services"
SERVICES: tuple[Route | Action, ...] = (
    route(
        "GET", "/os-services", services.index, "services:index", query=service_schemas.LIST, policy=f"{_SERVICE}:list"
    ),
    route(
        "PUT",
        "/os-services/{id}",
        services.update_by_name,
        "services:update_by_name",
        until="2.52",
        body=service_schemas.UPDATE,
        policy=f"{_SERVICE}:update",
    ),
    # Looks at the id before it asks policy, as the reference does.
    route("PUT", "/os-services/{id}", services.update, "services:update", since="2.53", body=service_schemas.UPDATE),
    route("DELETE", "/os-services/{id}", services.delete, "services:delete", status=204, policy=f"{_SERVICE}:delete"),
)

_BOOTED = ("/servers", "/servers/detail", "/servers/{id}")
_BOOTED_ACTIONS = (
    "confirmResize", "createImage", "os-start", "os-stop", "reboot", "rebuild", "resize", "revertResize",
    "trigger_crash_dump",
)  # fmt: skip
# An alias that was never written down, and that some clients use nevertheless.
VOLUMES_BOOT: tuple[Route | Action, ...] = tuple(
    dataclasses.replace(
        operation,
        path=operation.path.replace("/servers", "/os-volumes_boot"),
        operation=f"volumes_boot:{operation.operation}",
        until="2.102",
    )
    for operation in SERVERS
    if (operation.key in _BOOTED_ACTIONS if isinstance(operation, Action) else operation.path in _BOOTED)
)

ROUTES: tuple[Route | Action, ...] = (
    *VERSIONS,
    *FLAVORS,
    *KEY_PAIRS,
    *LIMITS,
    *ZONES,
    *HYPERVISORS,
    *SERVICES,
    *AGGREGATES,
    *SERVER_GROUPS,
    *QUOTAS,
    *HOSTS,
    *USAGE,
    *MIGRATIONS,
    *SERVERS,
    *VOLUMES_BOOT,
    *NETWORK_PROXIES,
    *external_events.ROUTES,
    *CERTIFICATES,
    *UNBUILT,
)
