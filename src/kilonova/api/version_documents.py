"""Version documents behind a token, as old clients ask for them."""

from __future__ import annotations

from typing import Any

from kilonova.api import documents
from kilonova.api.errors import NO_SUCH_PATH
from kilonova.api.requests import Request
from kilonova.errors import NotFound


async def current(request: Request) -> dict[str, Any]:
    return _show(request, "v2.1")


async def show(request: Request) -> dict[str, Any]:
    return _show(request, request.params["id"])


def _show(request: Request, version_id: str) -> dict[str, Any]:
    if request.legacy:
        version_id = "v2.0"
    if not documents.has(version_id):
        raise NotFound(NO_SUCH_PATH)
    return documents.one_version(version_id, f"{request.base_url}/{'v2' if request.legacy else 'v2.1'}")
