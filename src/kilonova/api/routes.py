"""The table of all operations."""

from __future__ import annotations

from kilonova.api import version_documents
from kilonova.api.routing import Action, Route, route
from kilonova.api.servers.routes import ROUTES as SERVERS

ROUTES: tuple[Route | Action, ...] = (
    route("GET", "/", version_documents.current, "versions:current"),
    route("GET", "/versions/{id}", version_documents.show, "versions:show"),
    *SERVERS,
)
