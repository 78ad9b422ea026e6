"""GET /os-simple-tenant-usage and /os-simple-tenant-usage/{project}."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any

from kilonova.api import versions
from kilonova.api.fields import Field, QuerySchema
from kilonova.api.requests import Link, Request
from kilonova.api.types import NOT_NEGATIVE, TEXT, multi
from kilonova.compute.usage import ProjectUsage, by_project, hours_of
from kilonova.db import usage as rows
from kilonova.db.usage import MarkerNotFound, Used
from kilonova.errors import Invalid

_PAGE = (Field("limit", multi(NOT_NEGATIVE), since="2.40"), Field("marker", multi(TEXT), since="2.40"))
_TIMES = (Field("start", multi(TEXT)), Field("end", multi(TEXT)))
LIST = QuerySchema(*_TIMES, Field("detailed", multi(TEXT)), *_PAGE, open_until="2.74")
SHOW = QuerySchema(*_TIMES, *_PAGE, open_until="2.74")
_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f")


async def index(request: Request) -> dict[str, Any]:
    start, stop, now = _period(request)
    detailed = _first(request, "detailed") == "1"
    found = await _servers(request, start, stop, None)
    shown = [_project(usage, start, stop, now if detailed else None) for usage in by_project(found, start, stop)]
    links = _links(request, "os-simple-tenant-usage", found)
    return {"tenant_usages": shown} | ({"tenant_usages_links": links} if links else {})


async def show(request: Request) -> dict[str, Any]:
    project_id = request.params["id"]
    request.authorize("os_compute_api:os-simple-tenant-usage:show", {"project_id": project_id})
    start, stop, now = _period(request)
    found = await _servers(request, start, stop, project_id)
    shown = [_project(usage, start, stop, now) for usage in by_project(found, start, stop)]
    links = _links(request, f"os-simple-tenant-usage/{project_id}", found)
    return {"tenant_usage": shown[0] if shown else {}} | ({"tenant_usage_links": links} if links else {})


def _first(request: Request, name: str) -> str | None:
    return next((value for value in request.query.all(name) if value), None)


def _time(text: str) -> dt.datetime:
    for form in _FORMATS:
        try:
            return dt.datetime.strptime(text, form)  # noqa: DTZ007 - naive UTC is what the database holds
        except ValueError:
            continue
    raise Invalid(f"Datetime is in invalid format: {text!r}; accepted is 2026-01-31T12:00:00 or 2026-01-31T12:00:00.5.")


def _period(request: Request) -> tuple[dt.datetime, dt.datetime, dt.datetime]:
    """Start, end (not in the future) and now. Raises Invalid."""
    now = request.runtime.world.now()
    asked_start, asked_end = _first(request, "start"), _first(request, "end")
    start = _time(asked_start) if asked_start else now
    end = _time(asked_end) if asked_end else now + dt.timedelta(microseconds=1)
    if start >= end:
        raise Invalid("Invalid start time. The start time cannot occur after the end time.")
    return start, min(end, now), now


async def _servers(request: Request, start: dt.datetime, stop: dt.datetime, project_id: str | None) -> list[Used]:
    paged = request.version >= versions.USAGE_PAGING
    marker = request.query.last("marker") if paged else None
    limit = request.page_limit() if paged else request.runtime.settings.max_limit
    read = functools.partial(rows.servers, start=start, stop=stop, project_id=project_id, limit=limit, marker=marker)
    try:
        return await request.runtime.db.read(read)
    except MarkerNotFound:
        raise Invalid(f"marker [{marker}] not found") from None


def _links(request: Request, collection: str, found: list[Used]) -> list[Link]:
    if request.version < versions.USAGE_PAGING:
        return []
    return request.next_links(collection, len(found), found[-1].uuid if found else None)


def _text(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def _project(usage: ProjectUsage, start: dt.datetime, stop: dt.datetime, now: dt.datetime | None) -> dict[str, Any]:
    """`now`: with its servers, which are that old."""
    shown: dict[str, Any] = {
        "tenant_id": usage.project_id,
        "total_local_gb_usage": usage.local_gb_hours,
        "total_vcpus_usage": usage.vcpu_hours,
        "total_memory_mb_usage": usage.memory_mb_hours,
        "total_hours": usage.hours,
        "start": _text(start),
        "stop": _text(stop),
    }
    if now is not None:
        shown["server_usages"] = [_server(server, start, stop, now) for server in usage.servers]
    return shown


def _server(server: Used, start: dt.datetime, stop: dt.datetime, now: dt.datetime) -> dict[str, Any]:
    ended = server.terminated_at
    return {
        "hours": hours_of(server, start, stop),
        "flavor": server.flavor_name,
        "instance_id": server.uuid,
        "name": server.name,
        "tenant_id": server.project_id,
        "memory_mb": server.memory_mb,
        "local_gb": server.local_gb,
        "vcpus": server.vcpus,
        "started_at": _text(server.launched_at),
        "ended_at": _text(ended) if ended else None,
        "state": "terminated" if ended else server.vm_state,
        "uptime": int(((ended or now) - server.launched_at).total_seconds()),
    }
