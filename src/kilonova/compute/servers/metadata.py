"""Metadata of servers."""

from __future__ import annotations

from collections.abc import Callable

from kilonova.compute import quota_usage
from kilonova.compute.servers.hold import hold_changeable
from kilonova.compute.servers.submit import check_lock
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.errors import NotFound, OverQuota
from kilonova.runtime import Runtime

Metadata = dict[str, str]


async def put(rt: Runtime, ctx: RequestContext, server: Server, items: Metadata) -> Metadata:
    """Add and change items; returns all. Raises Conflict, NotFound, OverQuota."""
    return await _change(rt, ctx, server, "update metadata", lambda current: current | items)


async def replace(rt: Runtime, ctx: RequestContext, server: Server, items: Metadata) -> Metadata:
    """Have these items and no others. Raises Conflict, NotFound, OverQuota."""
    return await _change(rt, ctx, server, "update metadata", lambda current: items)


async def remove(rt: Runtime, ctx: RequestContext, server: Server, key: str) -> None:
    """Raises Conflict, NotFound."""

    def without(current: Metadata) -> Metadata:
        if key not in current:
            raise NotFound("Metadata item was not found")
        return {name: value for name, value in current.items() if name != key}

    await _change(rt, ctx, server, "delete metadata", without)


async def _change(
    rt: Runtime, ctx: RequestContext, server: Server, action: str, change: Callable[[Metadata], Metadata]
) -> Metadata:
    check_lock(ctx, server)

    async def work(tx: Tx) -> Metadata:
        current = await hold_changeable(tx, server.uuid, action)
        wanted = change(current.metadata)
        if len(wanted) > len(current.metadata):
            limits = await quota_usage.read_limits(tx, server.project_id, ctx.user_id, rt.settings.quota)
            allowed = limits.of_user["metadata_items"]
            if 0 <= allowed < len(wanted):
                raise OverQuota(f"Maximum number of metadata items exceeds {allowed}")
        await servers.update(tx, server.uuid, metadata=wanted, updated_at=rt.world.now())
        return wanted

    return await rt.db.write(work)
