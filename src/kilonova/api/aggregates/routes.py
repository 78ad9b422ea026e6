from __future__ import annotations

from kilonova.api.aggregates import handlers, schemas
from kilonova.api.routing import Action, Route, action, route

_ALL = "/os-aggregates"
_ONE = "/os-aggregates/{id}"
_RULE = "os_compute_api:os-aggregates"

ROUTES: tuple[Route | Action, ...] = (
    route("GET", _ALL, handlers.index, "aggregates:index", policy=f"{_RULE}:index"),
    route("POST", _ALL, handlers.create, "aggregates:create", body=schemas.CREATE, policy=f"{_RULE}:create"),
    route("GET", _ONE, handlers.show, "aggregates:show", policy=f"{_RULE}:show"),
    route("PUT", _ONE, handlers.update, "aggregates:update", body=schemas.UPDATE, policy=f"{_RULE}:update"),
    route("DELETE", _ONE, handlers.delete, "aggregates:delete", policy=f"{_RULE}:delete"),
    action(
        f"{_ONE}/action",
        "add_host",
        handlers.add_host,
        "aggregates:add_host",
        body=schemas.ADD_HOST,
        policy=f"{_RULE}:add_host",
    ),
    action(
        f"{_ONE}/action",
        "remove_host",
        handlers.remove_host,
        "aggregates:remove_host",
        body=schemas.REMOVE_HOST,
        policy=f"{_RULE}:remove_host",
    ),
    action(
        f"{_ONE}/action",
        "set_metadata",
        handlers.set_metadata,
        "aggregates:set_metadata",
        body=schemas.SET_METADATA,
        policy=f"{_RULE}:set_metadata",
    ),
    route(
        "POST",
        f"{_ONE}/images",
        handlers.images,
        "aggregates:images",
        since="2.81",
        status=202,
        body=schemas.IMAGES,
        policy="compute:aggregates:images",
    ),
)
