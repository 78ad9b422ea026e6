"""Server groups: made and deleted; servers become members when they are booted."""

from __future__ import annotations

from collections.abc import Mapping

from kilonova.compute import quota_usage
from kilonova.context import RequestContext
from kilonova.db import quotas as quota_rows
from kilonova.db import server_groups as rows
from kilonova.db.engine import Tx
from kilonova.db.server_groups import ServerGroup
from kilonova.errors import Forbidden, Invalid, NotFound, OverQuota
from kilonova.runtime import Runtime

ANTI_AFFINITY = "anti-affinity"


def _missing(uuid: str) -> NotFound:
    return NotFound(f"Instance group {uuid} could not be found.")


async def find(
    rt: Runtime, *, project_id: str | None, limit: int, offset: int
) -> tuple[list[ServerGroup], dict[str, list[str]]]:
    """A page of groups, of one project or of all, with their members by the group's UUID."""

    async def work(tx: Tx) -> tuple[list[ServerGroup], dict[str, list[str]]]:
        groups = await rows.find(tx, project_id=project_id, limit=limit, offset=offset)
        return groups, await rows.members(tx, [group.uuid for group in groups])

    return await rt.db.read(work)


async def get(rt: Runtime, uuid: str, *, project_id: str | None) -> tuple[ServerGroup, dict[str, list[str]]]:
    """With its members. Raises NotFound."""

    async def work(tx: Tx) -> tuple[ServerGroup, dict[str, list[str]]]:
        group = await rows.get(tx, uuid, project_id=project_id)
        if group is None:
            raise _missing(uuid)
        return group, await rows.members(tx, [uuid])

    return await rt.db.read(work)


async def create(
    rt: Runtime, ctx: RequestContext, *, name: str, policy: str, max_server_per_host: int | None
) -> ServerGroup:
    """Raises Invalid for a rule that the policy does not have, OverQuota."""
    if policy != ANTI_AFFINITY and max_server_per_host is not None:
        raise Invalid("Only anti-affinity policy supports rules.")
    uuid = rt.world.uuid()

    async def work(tx: Tx) -> ServerGroup:
        # Nobody else makes one in this project meanwhile, so that what is counted cannot grow.
        await quota_rows.lock(tx, ctx.project_id)
        limits = await quota_usage.read_limits(tx, ctx.project_id, ctx.user_id, rt.settings.quota)
        allowed = limits.project["server_groups"]
        own = limits.own.get("server_groups", -1)
        if 0 <= allowed <= await rows.count(tx, ctx.project_id) or 0 <= own <= await rows.count(
            tx, ctx.project_id, ctx.user_id
        ):
            raise OverQuota("Quota exceeded, too many server groups.")
        return await rows.insert(
            tx,
            {
                "uuid": uuid,
                "project_id": ctx.project_id,
                "user_id": ctx.user_id,
                "name": name,
                "policy": policy,
                "rules": {} if max_server_per_host is None else {"max_server_per_host": max_server_per_host},
                "created_at": rt.world.now(),
            },
        )

    return await rt.db.write(work)


async def delete(rt: Runtime, uuid: str) -> None:
    """Its members go on without it. Raises NotFound."""

    async def work(tx: Tx) -> None:
        group = await rows.get(tx, uuid, lock=True)
        if group is None:
            raise _missing(uuid)
        await rows.delete(tx, group)

    await rt.db.write(work)


async def join(tx: Tx, ctx: RequestContext, uuid: str, count: int, limits: Mapping[str, int]) -> str:
    """Let so many new servers of the caller be members; returns the group's UUID.

    Holds the group, so that it is there, and not fuller, when the transaction ends. Raises Invalid, Forbidden.
    """
    group = await rows.get(tx, uuid, project_id=None if ctx.is_admin else ctx.project_id, lock=True)
    if group is None:
        raise Invalid(f"Instance group {uuid} could not be found.")
    allowed = limits["server_group_members"]
    if 0 <= allowed < await rows.count_members(tx, group.uuid, ctx.user_id) + count:
        raise Forbidden("Quota exceeded, too many servers in group")
    return group.uuid
