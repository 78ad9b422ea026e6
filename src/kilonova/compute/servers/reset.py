"""Reset-state: an administrator's word on the state of a server, over whatever is under way."""

from __future__ import annotations

from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.engine import store
from kilonova.errors import NotFound
from kilonova.runtime import Runtime


async def reset_state(rt: Runtime, ctx: RequestContext, server: Server, vm_state: str) -> None:
    """Set `vm_state` and free the slot; the operation that held it stops at its next commit."""

    async def work(tx: Tx) -> None:
        now = rt.world.now()
        current = await servers.get(tx, server.uuid)
        if current is None:
            raise NotFound(f"Instance {server.uuid} could not be found.")
        if current.operation_id is not None:
            await store.supersede(tx, current.operation_id, now, "An administrator reset the server's state.")
            await store.supersede_queued(tx, server.uuid, now, "An administrator reset the server's state.")
        await servers.update(
            tx,
            server.uuid,
            vm_state=vm_state,
            task_state=None,
            operation_id=None,
            deleting=False,
            generation=instances.c.generation + 1,
            updated_at=now,
        )
        await store.insert(
            tx,
            kind="reset",
            action="os-resetState",
            server_uuid=server.uuid,
            project_id=ctx.project_id,
            user_id=ctx.user_id,
            request_id=ctx.request_id,
            now=now,
            state="done",
        )

    await rt.db.write(work)
