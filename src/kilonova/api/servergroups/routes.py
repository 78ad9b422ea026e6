from __future__ import annotations

from kilonova.api.routing import Action, Route, route
from kilonova.api.servergroups import handlers, schemas

_ALL = "/os-server-groups"
_ONE = "/os-server-groups/{id}"
_RULE = "os_compute_api:os-server-groups"

ROUTES: tuple[Route | Action, ...] = (
    route("GET", _ALL, handlers.index, "server_groups:index", query=schemas.LIST, policy=f"{_RULE}:index"),
    route("POST", _ALL, handlers.create, "server_groups:create", body=schemas.CREATE, policy=f"{_RULE}:create"),
    # What is there decides whose it is, so that policy is asked after the look-up.
    route("GET", _ONE, handlers.show, "server_groups:show"),
    route("DELETE", _ONE, handlers.delete, "server_groups:delete", status=204),
)
