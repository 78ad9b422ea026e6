from __future__ import annotations

from kilonova.api.migrations import handlers
from kilonova.api.routing import Action, Route, route

_OF_SERVER = "/servers/{server_id}/migrations"

ROUTES: tuple[Route | Action, ...] = (
    # Whose they are decides which rules count, so that the handlers ask them.
    route("GET", "/os-migrations", handlers.index, "migrations:index", query=handlers.LIST),
    route("GET", _OF_SERVER, handlers.of_server, "server_migrations:index", since="2.23"),
    route("GET", f"{_OF_SERVER}/{{id}}", handlers.show_of_server, "server_migrations:show", since="2.23"),
)
