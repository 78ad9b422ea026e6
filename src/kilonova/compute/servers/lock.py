"""Locks: a locked server is changed by administrators only."""

from __future__ import annotations

from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.engine import store
from kilonova.runtime import Runtime


async def lock(rt: Runtime, ctx: RequestContext, server: Server, reason: str | None = None) -> None:
    by = "owner" if server.project_id == ctx.project_id else "admin"
    await _change(rt, ctx, server, "lock", locked=True, locked_by=by, locked_reason=reason)


async def unlock(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    """Whether the caller may unlock what an administrator locked is policy's, not ours."""
    await _change(rt, ctx, server, "unlock", locked=False, locked_by=None, locked_reason=None)


async def _change(rt: Runtime, ctx: RequestContext, server: Server, action: str, **values: object) -> None:
    async def work(tx: Tx) -> None:
        now = rt.world.now()
        await servers.update(tx, server.uuid, updated_at=now, **values)
        await store.insert(
            tx,
            kind=action,
            action=action,
            server_uuid=server.uuid,
            project_id=ctx.project_id,
            user_id=ctx.user_id,
            request_id=ctx.request_id,
            now=now,
            state="done",
        )

    await rt.db.write(work)
