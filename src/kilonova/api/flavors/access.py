"""Which projects may use a private flavor."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.requests import Request
from kilonova.compute import flavors
from kilonova.db.engine import Tx
from kilonova.errors import Invalid


def _view(flavor_id: str, projects: list[str]) -> dict[str, Any]:
    return {"flavor_access": [{"flavor_id": flavor_id, "tenant_id": project} for project in projects]}


async def show(request: Request) -> dict[str, Any]:
    flavor_id = request.params["flavor_id"]

    async def work(tx: Tx) -> list[str]:
        return await flavors.access(tx, request.context, flavor_id)

    return _view(flavor_id, await request.runtime.db.read(work))


async def add(request: Request) -> dict[str, Any]:
    project_id = request.body["addTenantAccess"]["tenant"]
    if await request.project_exists(project_id) is False:
        raise Invalid(f"Project ID {project_id} is not a valid project.")
    projects = await flavors.add_access(
        request.runtime,
        request.context,
        request.params["id"],
        project_id,
        refuse_public=request.version >= versions.NO_ACCESS_ON_PUBLIC_FLAVORS,
    )
    return _view(request.params["id"], projects)


async def remove(request: Request) -> dict[str, Any]:
    # A project that is gone may still stand in the list, so Identity is not asked.
    project_id = request.body["removeTenantAccess"]["tenant"]
    projects = await flavors.remove_access(request.runtime, request.context, request.params["id"], project_id)
    return _view(request.params["id"], projects)
