"""Server groups: listed, shown, made, deleted. A group cannot be changed; servers join it when they are made."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.requests import MAX_PAGE, Request
from kilonova.api.servergroups.view import VIEW
from kilonova.api.types import whole
from kilonova.compute import server_groups
from kilonova.db.server_groups import ServerGroup

_RULE = "os_compute_api:os-server-groups"


async def index(request: Request) -> dict[str, Any]:
    context = request.context
    everybody = "all_projects" in request.query and context.is_admin
    if everybody:
        request.authorize(f"{_RULE}:index:all_projects")
    groups, members = await server_groups.find(
        request.runtime,
        project_id=None if everybody else context.project_id,
        limit=request.page_limit() or request.runtime.settings.max_limit,
        offset=min(whole(request.query.last("offset") or 0), MAX_PAGE),
    )
    render = VIEW.at(request.version)
    return {"server_groups": [render(group, members) for group in groups]}


async def show(request: Request) -> dict[str, Any]:
    group, members = await _get(request, "show")
    return {"server_group": VIEW.at(request.version)(group, members)}


async def create(request: Request) -> dict[str, Any]:
    fields = request.body["server_group"]
    policy, rules = fields.get("policy"), fields.get("rules", {})
    if request.version < versions.SERVER_GROUP_RULES:
        policy = fields["policies"][0]
    group = await server_groups.create(
        request.runtime,
        request.context,
        name=fields["name"].strip() if request.legacy else fields["name"],
        policy=policy,
        max_server_per_host=whole(rules["max_server_per_host"]) if "max_server_per_host" in rules else None,
    )
    return {"server_group": VIEW.at(request.version)(group, {})}


async def delete(request: Request) -> None:
    group, _ = await _get(request, "delete")
    await server_groups.delete(request.runtime, group.uuid)


async def _get(request: Request, doing: str) -> tuple[ServerGroup, dict[str, list[str]]]:
    """Raises NotFound, for others' groups too, and Forbidden."""
    context = request.context
    project_id = None if context.is_admin else context.project_id
    found = await server_groups.get(request.runtime, request.params["id"], project_id=project_id)
    request.authorize(f"{_RULE}:{doing}", {"project_id": found[0].project_id})
    return found
