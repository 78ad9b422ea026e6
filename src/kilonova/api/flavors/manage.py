"""POST /flavors, PUT and DELETE /flavors/{id}: for administrators."""

from __future__ import annotations

from typing import Any

from kilonova.api.flavors.view import shown
from kilonova.api.requests import Request
from kilonova.api.types import boolean
from kilonova.compute import flavors
from kilonova.compute.flavors import NewFlavor


async def create(request: Request) -> dict[str, Any]:
    fields = request.body["flavor"]
    flavor_id = fields.get("id")
    new = NewFlavor(
        name=fields["name"].strip(),
        flavorid=str(flavor_id) if flavor_id else None,
        memory_mb=int(fields["ram"]),
        vcpus=int(fields["vcpus"]),
        root_gb=int(fields["disk"]),
        ephemeral_gb=int(fields.get("OS-FLV-EXT-DATA:ephemeral", 0)),
        swap_mb=int(fields.get("swap", 0)),
        rxtx_factor=float(fields.get("rxtx_factor", 1.0)),
        is_public=boolean(fields.get("os-flavor-access:is_public", True)),
        description=fields.get("description"),
    )
    return shown(request, await flavors.create(request.runtime, new))


async def update(request: Request) -> dict[str, Any]:
    description = request.body["flavor"]["description"]
    flavor = await flavors.describe(request.runtime, request.context, request.params["id"], description)
    return shown(request, flavor)


async def delete(request: Request) -> None:
    await flavors.delete(request.runtime, request.params["id"])
