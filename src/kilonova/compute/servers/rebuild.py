"""Rebuild: the same server with a new root disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kilonova.agent.wanted import read_wanted
from kilonova.compute import placing, signatures, states
from kilonova.compute.servers.boot import check_image_fits, image_snapshot, new_password
from kilonova.compute.servers.submit import submit
from kilonova.context import RequestContext
from kilonova.db.servers import Server
from kilonova.errors import Invalid, NotFound
from kilonova.numa import read_asked
from kilonova.runtime import Image, Runtime

REBUILD_FROM = (states.ACTIVE, states.STOPPED, states.ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildRequest:
    """`changes`: columns of the server that the request sets anew (name, metadata, key, user data, ...)."""

    image_ref: str
    admin_password: str | None
    changes: dict[str, Any]
    token: str = field(default="", repr=False)
    """The caller's."""


async def rebuild(rt: Runtime, ctx: RequestContext, server: Server, request: RebuildRequest) -> str:
    """Start it and return the new admin password. Raises Invalid, Conflict, Unavailable."""
    try:
        image = await rt.images.get(request.image_ref, project_id=ctx.project_id)
    except NotFound as error:
        raise Invalid(f"Cannot find image {request.image_ref} for rebuild") from error
    if image.status != "active":
        raise Invalid(f"Image {request.image_ref} is unacceptable: Image is not active.")
    check_image_fits(image, server.memory_mb, server.root_gb)
    read_wanted(server.vcpus, server.flavor.get("extra_specs") or {}, image.spec.properties)
    check_cells(server, image)
    if request.image_ref != server.image_ref:
        await rt.db.read(lambda tx: placing.check_image(tx, rt.settings, server, request.image_ref, image))
    image = await signatures.demand(
        rt, image, request.token, request.changes.get("trusted_certs", server.trusted_certs)
    )
    password = request.admin_password or new_password(rt)
    values = request.changes | {
        "image_ref": request.image_ref,
        "image": image_snapshot(image),
        "kernel_id": image.properties.get("kernel_id", ""),
        "ramdisk_id": image.properties.get("ramdisk_id", ""),
        "progress": 0,
    }
    await submit(
        rt,
        ctx,
        server,
        kind="rebuild",
        action="rebuild",
        task_state=states.REBUILDING,
        vm_states=REBUILD_FROM,
        data={"stopped": server.vm_state == states.STOPPED},
        secrets={"admin_password": password},
        values=values,
    )
    return password


def check_cells(server: Server, image: Image) -> None:
    """What a server has of its host's cells stays as it is. Raises Invalid for an image that asks for other things."""
    extra_specs = server.flavor.get("extra_specs") or {}
    old = (server.image or {}).get("properties") or {}
    if old == image.spec.properties:
        return
    has, wants = (
        read_asked(server.vcpus, server.memory_mb, extra_specs, properties)
        for properties in (old, image.spec.properties)
    )
    if has != wants:
        raise Invalid(
            f"Image {image.id} asks for other NUMA cells, CPUs or pages than the server has, which a rebuild keeps."
        )
