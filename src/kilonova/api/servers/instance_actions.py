"""`/servers/{server_id}/os-instance-actions`: a view of the operations on a server and their steps."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.api.servers.view import host_id, long_timestamp
from kilonova.api.validation import parse_time
from kilonova.db import actions
from kilonova.db.actions import Action, Event, MarkerNotFound
from kilonova.db.engine import Tx
from kilonova.errors import Invalid, NotFound
from kilonova.workflows import step_name

_RULE = "os_compute_api:os-instance-actions:"
_FAILED = ("failed", "stuck")


async def index(request: Request) -> Any:
    server = await find(request, _RULE + "list", deleted=request.version >= versions.ACTIONS_OF_DELETED_SERVERS)
    paged = request.version >= versions.ACTIONS_PAGING
    since, before = (request.query.last(name) for name in ("changes-since", "changes-before"))
    changes_since = parse_time(since) if since else None
    changes_before = parse_time(before) if before else None
    if changes_since and changes_before and changes_before < changes_since:
        raise Invalid("The value of changes-since must be less than or equal to changes-before.")
    marker = request.query.last("marker")

    async def read(tx: Tx) -> list[Action]:
        return await actions.page(
            tx,
            server.uuid,
            limit=request.page_limit() if paged else None,
            marker=marker,
            changes_since=changes_since,
            changes_before=changes_before,
        )

    try:
        found = await request.runtime.db.read(read)
    except MarkerNotFound:
        raise Invalid(f"Marker {marker} could not be found.") from None
    answer: dict[str, Any] = {"instanceActions": [_action(request, action) for action in found]}
    if paged:
        collection = f"servers/{server.uuid}/os-instance-actions"
        links = request.next_links(collection, len(found), found[-1].request_id if found else None)
        if links:
            answer["links"] = links
    return answer


async def show(request: Request) -> Any:
    server = await find(request, _RULE + "show", deleted=request.version >= versions.ACTIONS_OF_DELETED_SERVERS)
    request_id = request.params["id"]
    target = {"project_id": server.project_id}
    everything = request.allowed(_RULE + "events", target)
    with_events = everything or request.version >= versions.ACTION_EVENTS_FOR_ALL

    async def read(tx: Tx) -> tuple[Action, list[Event]]:
        action = await actions.get(tx, server.uuid, request_id)
        if action is None:
            raise NotFound(f"Action {request_id} not found")
        if not with_events:
            return action, []
        under_way = _under_way(action)
        return action, [*([under_way] if under_way else []), *await actions.events(tx, action.id)]

    action, events = await request.runtime.db.read(read)
    view = _action(request, action)
    if with_events:
        details = request.version >= versions.ACTION_EVENTS_DETAILS and request.allowed(
            _RULE + "events:details", target
        )
        view["events"] = [_event(request, event, action.project_id, everything, details) for event in events]
    return {"instanceAction": view}


def _under_way(action: Action) -> Event | None:
    """The step that an operation is at, from its cursor; it becomes a row only when it is over."""
    name = step_name(action.kind, action.step) if action.is_open else None
    if name is None:
        return None
    progress = action.progress
    return Event(
        name=name,
        phase=action.phase,
        host=None,
        result=None,
        details=f"{progress['stage']}: {progress['percent']} %" if progress else None,
        traceback=None,
        started_at=action.updated_at or action.created_at,
        finished_at=None,
    )


def _action(request: Request, action: Action) -> dict[str, Any]:
    view: dict[str, Any] = {
        "action": action.action,
        "instance_uuid": action.server_uuid,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": long_timestamp(action.created_at),
        "message": "Error" if action.state in _FAILED else None,
    }
    if request.version >= versions.ACTIONS_PAGING:
        view["updated_at"] = long_timestamp(action.changed_at)
    return view


def _event(request: Request, event: Event, project_id: str, everything: bool, details: bool) -> dict[str, Any]:
    view: dict[str, Any] = {
        "event": event.name if event.phase == "do" else f"{event.phase}_{event.name}",
        "start_time": long_timestamp(event.started_at),
        "finish_time": long_timestamp(event.finished_at),
        "result": event.result,
    }
    if everything:
        view["traceback"] = event.traceback
    if request.version >= versions.ACTION_EVENTS_HOST:
        if everything:
            view["host"] = event.host
        view["hostId"] = host_id(project_id, event.host)
    if details:
        view["details"] = event.details
    return view
