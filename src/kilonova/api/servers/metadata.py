"""`/servers/{server_id}/metadata`."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.compute.servers import metadata
from kilonova.errors import Invalid, NotFound

_RULE = "os_compute_api:server-metadata:"


async def index(request: Request) -> Any:
    server = await find(request, _RULE + "index")
    return {"metadata": server.metadata}


async def create(request: Request) -> Any:
    server = await find(request, _RULE + "create")
    return {"metadata": await metadata.put(request.runtime, request.context, server, request.body["metadata"])}


async def update_all(request: Request) -> Any:
    server = await find(request, _RULE + "update_all")
    return {"metadata": await metadata.replace(request.runtime, request.context, server, request.body["metadata"])}


async def show(request: Request) -> Any:
    server = await find(request, _RULE + "show")
    key = request.params["key"]
    if key not in server.metadata:
        raise NotFound("Metadata item was not found")
    return {"meta": {key: server.metadata[key]}}


async def update(request: Request) -> Any:
    server = await find(request, _RULE + "update")
    item = request.body["meta"]
    if request.params["key"] not in item:
        raise Invalid("Request body and URI mismatch")
    await metadata.put(request.runtime, request.context, server, item)
    return {"meta": item}


async def delete(request: Request) -> None:
    server = await find(request, _RULE + "delete")
    await metadata.remove(request.runtime, request.context, server, request.params["key"])
