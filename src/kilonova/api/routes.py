"""The table of all operations."""

from __future__ import annotations

from kilonova.api import version_documents
from kilonova.api.flavors import access, extra_specs, manage
from kilonova.api.flavors import list as flavor_list
from kilonova.api.flavors import schemas as flavor_schemas
from kilonova.api.flavors import show as flavor_show
from kilonova.api.routing import Action, Route, action, route
from kilonova.api.servers.routes import ROUTES as SERVERS

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

ROUTES: tuple[Route | Action, ...] = (*VERSIONS, *FLAVORS, *SERVERS)
