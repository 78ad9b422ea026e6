from __future__ import annotations

from kilonova.api.quotas import handlers, schemas
from kilonova.api.routing import Action, Route, route

_ONE = "/os-quota-sets/{id}"
_CLASS = "/os-quota-class-sets/{id}"
_CLASS_RULE = "os_compute_api:os-quota-class-sets"

# Whose quotas they are decides policy, so that the handlers ask it.
ROUTES: tuple[Route | Action, ...] = (
    route("GET", _ONE, handlers.show, "quota_sets:show", query=schemas.OF_USER),
    route("GET", f"{_ONE}/detail", handlers.detail, "quota_sets:detail", query=schemas.OF_USER),
    route("GET", f"{_ONE}/defaults", handlers.defaults, "quota_sets:defaults", query=schemas.DEFAULTS),
    route("PUT", _ONE, handlers.update, "quota_sets:update", body=schemas.UPDATE, query=schemas.OF_USER),
    route("DELETE", _ONE, handlers.delete, "quota_sets:delete", status=202, query=schemas.OF_USER),
    route("GET", _CLASS, handlers.show_class, "quota_class_sets:show", policy=f"{_CLASS_RULE}:show"),
    route(
        "PUT",
        _CLASS,
        handlers.update_class,
        "quota_class_sets:update",
        body=schemas.UPDATE_CLASS,
        policy=f"{_CLASS_RULE}:update",
    ),
)
