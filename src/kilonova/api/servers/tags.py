"""`/servers/{server_id}/tags`."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from kilonova.api.requests import Request
from kilonova.api.responses import Response
from kilonova.api.servers.lookup import find
from kilonova.compute.servers import tags
from kilonova.db import tags as rows
from kilonova.errors import Invalid, NotFound

_RULE = "os_compute_api:os-server-tags:"
_TAG = re.compile(r"[^,/]{1,60}", re.DOTALL)


async def index(request: Request) -> Any:
    server = await find(request, _RULE + "index")
    return {"tags": await request.runtime.db.read(lambda tx: rows.get(tx, server.uuid))}


async def show(request: Request) -> None:
    server = await find(request, _RULE + "show")
    tag = request.params["tag"]
    if not await request.runtime.db.read(lambda tx: rows.exists(tx, server.uuid, tag)):
        raise NotFound(f"Server {server.uuid} has no tag '{tag}'")


async def update(request: Request) -> Response:
    server = await find(request, _RULE + "update")
    tag = request.params["tag"]
    if not _TAG.fullmatch(tag):
        raise Invalid(
            f"Tag '{tag}' is invalid. It must be a non empty string without characters '/' and ',' "
            "and have at most 60 characters."
        )
    if not await tags.put(request.runtime, server, tag):
        return Response(status=204)
    location = f"{request.self_prefix}/servers/{server.uuid}/tags/{quote(tag)}"
    return Response(status=201, headers={"Location": location})


async def update_all(request: Request) -> Any:
    server = await find(request, _RULE + "update_all")
    return {"tags": await tags.replace(request.runtime, server, request.body["tags"])}


async def delete(request: Request) -> None:
    server = await find(request, _RULE + "delete")
    await tags.remove(request.runtime, server, request.params["tag"])


async def delete_all(request: Request) -> None:
    server = await find(request, _RULE + "delete_all")
    await tags.remove_all(request.runtime, server)
