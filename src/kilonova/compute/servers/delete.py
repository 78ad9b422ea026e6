"""Delete: stands outside of the slot, pushes aside whatever is under way."""

from __future__ import annotations

import datetime as dt

from kilonova.compute import states
from kilonova.compute.servers.submit import check_lock, wake, write_once
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.engine import store
from kilonova.errors import NotFound
from kilonova.runtime import Runtime


async def delete(
    rt: Runtime, ctx: RequestContext, server: Server, *, reclaim_before: dt.datetime | None = None
) -> None:
    """From now on the server is on its way out, from whatever state. Asking again is no error.

    `reclaim_before`: only if it is still softly deleted since before then.
    """
    check_lock(ctx, server)

    async def work(tx: Tx) -> int | None:
        now = rt.world.now()
        current = await servers.get(tx, server.uuid, lock=True)
        if current is None:
            raise NotFound(f"Instance {server.uuid} could not be found.")
        if current.deleting:
            return current.operation_id
        if reclaim_before is not None and not _is_due(current, reclaim_before):
            return None
        if current.operation_id is not None:
            await store.supersede(tx, current.operation_id, now, "The server was deleted.")
            await store.supersede_queued(tx, server.uuid, now, "The server was deleted.")
        operation_id = await store.insert(
            tx,
            kind="delete",
            action="delete",
            server_uuid=server.uuid,
            project_id=ctx.project_id,
            user_id=ctx.user_id,
            request_id=ctx.request_id,
            now=now,
        )
        await servers.update(
            tx,
            server.uuid,
            operation_id=operation_id,
            deleting=True,
            task_state=states.DELETING,
            progress=0,
            generation=current.generation + 1,
            updated_at=now,
        )
        return operation_id

    async def nothing(tx: Tx) -> None:
        """Asking again is no error, so there is no need to know."""

    operation_id = await write_once(rt.db, work, nothing)
    if operation_id is not None:
        await wake(rt, operation_id)


def _is_due(server: Server, before: dt.datetime) -> bool:
    since = server.deleted_at
    return (
        server.vm_state == states.SOFT_DELETED and server.operation_id is None and since is not None and since < before
    )
