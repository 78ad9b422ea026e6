"""Flavors: who may see one, and every change of one, in one transaction each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy.exc

from kilonova.context import RequestContext
from kilonova.db import flavors as rows
from kilonova.db.engine import Tx
from kilonova.db.flavors import Flavor
from kilonova.errors import Conflict, NotFound
from kilonova.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFlavor:
    """Memory and swap in MiB, disks in GiB. Without a `flavorid` one is made up."""

    name: str
    vcpus: int
    memory_mb: int
    root_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    description: str | None = None
    flavorid: str | None = None


def not_found(flavorid: str) -> NotFound:
    return NotFound(f"Flavor {flavorid} could not be found.")


def visible_to(ctx: RequestContext) -> str | None:
    """The project whose view of flavors counts; None for an administrator, who sees all."""
    return None if ctx.is_admin else ctx.project_id


async def get(tx: Tx, ctx: RequestContext, flavorid: str) -> Flavor:
    """The flavor, if the caller may see it. Raises NotFound."""
    flavor = await rows.get(tx, flavorid, project_id=visible_to(ctx))
    if flavor is None:
        raise not_found(flavorid)
    return flavor


async def create(rt: Runtime, new: NewFlavor) -> Flavor:
    """Raises Conflict when the name or the flavorid is taken."""
    flavorid = new.flavorid or rt.world.uuid()
    values: dict[str, Any] = {
        "flavorid": flavorid,
        "name": new.name,
        "description": new.description,
        "vcpus": new.vcpus,
        "memory_mb": new.memory_mb,
        "root_gb": new.root_gb,
        "ephemeral_gb": new.ephemeral_gb,
        "swap_mb": new.swap_mb,
        "rxtx_factor": new.rxtx_factor,
        "is_public": new.is_public,
        "extra_specs": {},
        "created_at": rt.world.now(),
    }

    async def refuse_same(tx: Tx) -> None:
        same = await rows.find_same(tx, flavorid, new.name)
        if same is None:
            return
        if same.name == new.name:
            raise Conflict(f"Flavor with name {new.name} already exists.")
        raise Conflict(f"Flavor with ID {flavorid} already exists.")

    async def work(tx: Tx) -> Flavor:
        await refuse_same(tx)
        await rows.insert(tx, values)
        flavor = await rows.get(tx, flavorid)
        assert flavor is not None
        return flavor

    try:
        return await rt.db.write(work)
    except sqlalchemy.exc.IntegrityError:
        # Somebody was faster between the look and the insert.
        await rt.db.read(refuse_same)
        raise


async def delete(rt: Runtime, flavorid: str) -> None:
    async def work(tx: Tx) -> None:
        flavor = await rows.get(tx, flavorid)
        if flavor is None:
            raise not_found(flavorid)
        await rows.delete(tx, flavor.id)

    await rt.db.write(work)


async def describe(rt: Runtime, ctx: RequestContext, flavorid: str, description: str | None) -> Flavor:
    """Set the description, the one thing of a flavor that may change."""

    async def work(tx: Tx) -> Flavor:
        flavor = await get(tx, ctx, flavorid)
        await _update(tx, flavor, description=description, updated_at=rt.world.now())
        return await get(tx, ctx, flavorid)

    return await rt.db.write(work)


async def change_extra_specs(
    rt: Runtime, ctx: RequestContext, flavorid: str, change: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    """Replace a flavor's extra specs by what `change` makes of them."""

    async def work(tx: Tx) -> None:
        flavor = await get(tx, ctx, flavorid)
        await _update(tx, flavor, extra_specs=change(dict(flavor.extra_specs)), updated_at=rt.world.now())

    await rt.db.write(work)


async def _update(tx: Tx, flavor: Flavor, **values: object) -> None:
    if not await rows.update(tx, flavor, **values):
        raise Conflict(f"Flavor {flavor.flavorid} was changed by somebody else at the same time; try again.")


async def access(tx: Tx, ctx: RequestContext, flavorid: str) -> list[str]:
    """The projects with access to a private flavor. Raises NotFound for a public one."""
    flavor = await get(tx, ctx, flavorid)
    if flavor.is_public:
        raise NotFound("Access list not available for public flavors.")
    return await rows.projects(tx, flavor.id)


async def add_access(
    rt: Runtime, ctx: RequestContext, flavorid: str, project_id: str, *, refuse_public: bool
) -> list[str]:
    async def work(tx: Tx) -> list[str]:
        flavor = await get(tx, ctx, flavorid)
        if refuse_public and flavor.is_public:
            raise Conflict("Can not add access to a public flavor.")
        if not await rows.add_project(tx, flavor.id, project_id):
            raise taken
        return await rows.projects(tx, flavor.id)

    taken = Conflict(f"Flavor access already exists for flavor {flavorid} and project {project_id} combination.")
    try:
        return await rt.db.write(work)
    except sqlalchemy.exc.IntegrityError:
        raise taken from None


async def remove_access(rt: Runtime, ctx: RequestContext, flavorid: str, project_id: str) -> list[str]:
    async def work(tx: Tx) -> list[str]:
        flavor = await get(tx, ctx, flavorid)
        if not await rows.remove_project(tx, flavor.id, project_id):
            raise NotFound(f"Flavor access not found for {flavorid} / {project_id} combination.")
        return await rows.projects(tx, flavor.id)

    return await rt.db.write(work)
