"""Quotas of projects, of users in them, and of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kilonova.api.fields import Out, View
from kilonova.api.quotas.schemas import ALWAYS, FILES, NETWORK
from kilonova.api.requests import Request
from kilonova.api.types import boolean
from kilonova.compute import quotas
from kilonova.compute.quotas import Quota
from kilonova.errors import Invalid

_RULE = "os_compute_api:os-quota-sets"
_GROUPS = ("server_groups", "server_group_members")


def _of(name: str) -> Callable[[Mapping[str, Any], Any], Any]:
    return lambda values, _: values[name]


PROJECT = View(
    *(Out(name, _of(name)) for name in ALWAYS),
    *(Out(name, _of(name), until="2.56") for name in FILES),
    *(Out(name, _of(name), until="2.35") for name in NETWORK),
)
CLASS = View(
    *(Out(name, _of(name)) for name in ALWAYS if name not in _GROUPS),
    *(Out(name, _of(name), since="2.50") for name in _GROUPS),
    *(Out(name, _of(name), until="2.56") for name in FILES),
    *(Out(name, _of(name), until="2.49") for name in NETWORK),
)


async def _project(request: Request, doing: str) -> str:
    """The project in the path. Raises Forbidden, and Invalid when Identity does not know it."""
    project_id = request.params["id"]
    request.authorize(f"{_RULE}:{doing}", {"project_id": project_id})
    if await request.project_exists(project_id) is False:
        raise Invalid(f"Project ID {project_id} is not a valid project.")
    return project_id


def _user(request: Request) -> str | None:
    users = request.query.all("user_id")
    return next((user for user in users if user), None)


def _limits(found: Mapping[str, Quota]) -> dict[str, int]:
    return {name: quota.limit for name, quota in found.items()}


async def show(request: Request) -> dict[str, Any]:
    project_id = await _project(request, "show")
    found = await quotas.find(request.runtime, project_id, _user(request))
    return {"quota_set": {"id": project_id} | PROJECT.at(request.version)(_limits(found), None)}


async def detail(request: Request) -> dict[str, Any]:
    project_id = await _project(request, "detail")
    found = await quotas.find(request.runtime, project_id, request.query.last("user_id") or None)
    values = {name: {"limit": quota.limit, "in_use": quota.in_use, "reserved": 0} for name, quota in found.items()}
    return {"quota_set": {"id": project_id} | PROJECT.at(request.version)(values, None)}


async def defaults(request: Request) -> dict[str, Any]:
    project_id = await _project(request, "defaults")
    found = await quotas.defaults(request.runtime)
    return {"quota_set": {"id": project_id} | PROJECT.at(request.version)(found, None)}


async def update(request: Request) -> dict[str, Any]:
    project_id = await _project(request, "update")
    fields = dict(request.body["quota_set"])
    force = boolean(fields.pop("force", False))
    wanted = {name: int(value) for name, value in fields.items()}
    found = await quotas.update(request.runtime, project_id, _user(request), wanted, force=force)
    return {"quota_set": PROJECT.at(request.version)(_limits(found), None)}


async def delete(request: Request) -> None:
    project_id = request.params["id"]
    request.authorize(f"{_RULE}:delete", {"project_id": project_id})
    await quotas.delete(request.runtime, project_id, _user(request))


async def show_class(request: Request) -> dict[str, Any]:
    name = request.params["id"]
    found = await quotas.find_class(request.runtime, name)
    return {"quota_class_set": {"id": name} | CLASS.at(request.version)(found, None)}


async def update_class(request: Request) -> dict[str, Any]:
    name = request.params["id"]
    if len(name) > 255:
        raise Invalid(f"quota_class_name has {len(name)} characters, more than 255.")
    wanted = {resource: int(value) for resource, value in request.body["quota_class_set"].items()}
    found = await quotas.update_class(request.runtime, name, wanted)
    return {"quota_class_set": CLASS.at(request.version)(found, None)}
