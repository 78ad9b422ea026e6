"""`GET /servers`, `/servers/detail` and `/servers/{id}`."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from kilonova.api.requests import Request
from kilonova.api.responses import Response
from kilonova.api.servers.filters import list_query
from kilonova.api.servers.lookup import rights, surroundings, view_row
from kilonova.api.servers.view import Kind, View
from kilonova.db import server_list
from kilonova.db.server_list import MarkerNotFound
from kilonova.errors import Invalid

_ON_THE_LOOP = 100
"""Servers that may be put into JSON on the event loop; a longer list takes milliseconds and goes to a thread."""


async def index(request: Request) -> Any:
    query = list_query(request, detail=False)
    if query is None:
        return {"servers": []}
    try:
        rows = await request.runtime.db.read(lambda tx: server_list.names(tx, query))
    except MarkerNotFound:
        raise _no_marker(request) from None
    link = request.linker("servers")
    servers = [{"id": uuid, "name": name, "links": link(uuid)} for uuid, name in rows]
    return {"servers": servers, **_next(request, "servers", [uuid for uuid, _ in rows])}


async def detail(request: Request) -> Any:
    query = list_query(request, detail=True)
    if query is None:
        return {"servers": []}

    try:
        rows = await request.runtime.db.read(lambda tx: server_list.view_rows(tx, query))
    except MarkerNotFound:
        raise _no_marker(request) from None
    view = View(request.version, Kind.DETAIL, rights(request), surroundings(request))
    links = _next(request, "servers/detail", [row.uuid for row in rows])

    def encode() -> bytes:
        return msgspec.json.encode({"servers": view.many(rows), **links})

    return Response(encode() if len(rows) <= _ON_THE_LOOP else await asyncio.to_thread(encode))


async def show(request: Request) -> Any:
    row = await view_row(request, request.params["id"])
    request.authorize("os_compute_api:servers:show", {"project_id": row.project_id})
    view = View(request.version, Kind.SHOW, rights(request, row.project_id), surroundings(request))
    return {"server": view.one(row)}


def _no_marker(request: Request) -> Invalid:
    return Invalid(f"marker [{request.query.last('marker')}] not found")


def _next(request: Request, collection: str, uuids: list[str]) -> dict[str, Any]:
    links = request.next_links(collection, len(uuids), uuids[-1] if uuids else None)
    return {"servers_links": links} if links else {}
