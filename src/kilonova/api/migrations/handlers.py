"""Migrations: of all servers, and the live migrations of one server that go on."""

from __future__ import annotations

import datetime as dt
from typing import Any

from kilonova.api import versions
from kilonova.api.fields import Field, Out, QuerySchema, View
from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.api.types import NOT_NEGATIVE, TEXT, loose_boolean, multi, single
from kilonova.api.validation import parse_time
from kilonova.db import server_migrations as rows
from kilonova.db.server_migrations import IN_PROGRESS, LIVE, Filter, MarkerNotFound, Migration
from kilonova.errors import Invalid, NotFound

_RULE = "os_compute_api:os-migrations:index"
_SERVERS = "os_compute_api:servers:migrations"
_TIME = {"type": "string", "format": "date-time"}
_EXACT = ("status", "migration_type", "instance_uuid", "source_compute")

LIST = QuerySchema(
    *(Field(name, multi(TEXT)) for name in ("hidden", "host", *_EXACT)),
    Field("limit", single(NOT_NEGATIVE), since="2.59"),
    Field("marker", single(TEXT), since="2.59"),
    Field("changes-since", single(_TIME), since="2.59"),
    Field("changes-before", single(_TIME), since="2.66"),
    Field("user_id", single(TEXT), since="2.80"),
    Field("project_id", single(TEXT), since="2.80"),
    open_until="2.58",
)


def _created_at(migration: Migration, _: Any) -> str:
    return migration.created_at.isoformat(timespec="microseconds")


def _updated_at(migration: Migration, _: Any) -> str | None:
    return migration.updated_at.isoformat(timespec="microseconds") if migration.updated_at else None


def _place(name: str) -> Any:
    """Hosts are shown to those who may know them, to others as null."""
    return lambda migration, with_hosts: getattr(migration, name) if with_hosts else None


_PLACES = tuple(
    Out(name, _place(name)) for name in ("source_compute", "source_node", "dest_compute", "dest_node", "dest_host")
)
_COMMON = (
    Out("id", "id"),
    Out("uuid", "uuid", since="2.59"),
    *_PLACES,
    Out("status", "status"),
    Out("created_at", _created_at),
    Out("updated_at", _updated_at),
    Out("user_id", "user_id", since="2.80"),
    Out("project_id", "project_id", since="2.80"),
)
VIEW = View(
    *_COMMON,
    Out("instance_uuid", "instance_uuid"),
    Out("old_instance_type_id", "old_instance_type_id"),
    Out("new_instance_type_id", "new_instance_type_id"),
    Out("migration_type", "migration_type", since="2.23"),
)
OF_SERVER = View(
    *_COMMON,
    Out("server_uuid", "instance_uuid"),
    *(
        Out(f"{what}_{part}_bytes", f"{what}_{part}")
        for what in ("memory", "disk")
        for part in ("total", "processed", "remaining")
    ),
)


async def index(request: Request) -> dict[str, Any]:
    query, context = request.query, request.context
    request.authorize(_RULE)
    project_id = query.last("project_id") if request.version >= versions.MIGRATIONS_BY_OWNER else None
    if project_id != context.project_id:
        request.authorize(f"{_RULE}:all_projects")
    paged = request.version >= versions.MIGRATIONS_PAGING
    wanted, marker = _filter(request), query.last("marker") if paged else None

    try:
        found = await request.runtime.db.read(
            lambda tx: rows.find(tx, wanted, limit=request.page_limit() if paged else None, marker=marker)
        )
    except MarkerNotFound:
        raise Invalid(f"marker [{marker}] not found") from None
    with_hosts = request.allowed(f"{_RULE}:host")
    render = VIEW.at(request.version)
    shown = [render(migration, with_hosts) for migration in found if not migration.hidden]
    if request.version >= versions.MIGRATION_LINKS:
        for migration, view in zip((one for one in found if not one.hidden), shown, strict=True):
            if migration.migration_type == LIVE and migration.status in IN_PROGRESS:
                view["links"] = request.links(f"servers/{migration.instance_uuid}/migrations", migration.id)
    links = request.next_links("os-migrations", len(found), found[-1].uuid if found else None) if paged else []
    return {"migrations": shown} | ({"migrations_links": links} if links else {})


def _filter(request: Request) -> Filter:
    query = request.query
    exact = {name: value for name in _EXACT if (value := query.last(name)) is not None}
    if request.version >= versions.MIGRATIONS_BY_OWNER:
        exact |= {name: value for name in ("user_id", "project_id") if (value := query.last(name)) is not None}
    host = query.last("host")
    if host is not None:
        exact.pop("source_compute", None)
    since = _time(request, "changes-since")
    before = _time(request, "changes-before")
    if since is not None and before is not None and before < since:
        raise Invalid("The value of changes-since must be less than or equal to changes-before.")
    hidden = query.last("hidden")
    return Filter(
        host=host,
        exact=exact,
        hidden=loose_boolean(hidden) if hidden is not None else None,
        changed_since=since,
        changed_before=before,
    )


def _time(request: Request, name: str) -> dt.datetime | None:
    text = request.query.last(name)
    return parse_time(text) if text is not None else None


async def of_server(request: Request) -> dict[str, Any]:
    server = await find(request, f"{_SERVERS}:index")
    found = await request.runtime.db.read(lambda tx: rows.in_progress(tx, server.uuid))
    with_hosts = request.allowed(f"{_SERVERS}:index:host", {"project_id": server.project_id})
    render = OF_SERVER.at(request.version)
    return {"migrations": [render(migration, with_hosts) for migration in found]}


async def show_of_server(request: Request) -> dict[str, Any]:
    server = await find(request, f"{_SERVERS}:show")
    found = await request.runtime.db.read(lambda tx: rows.in_progress(tx, server.uuid))
    migration = next((one for one in found if str(one.id) == request.params["id"]), None)
    if migration is None:
        raise NotFound(f"In-progress live migration {request.params['id']} is not found for server {server.uuid}.")
    return {"migration": OF_SERVER.at(request.version)(migration, True)}
