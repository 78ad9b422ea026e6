"""Reset-state: an administrator's word on the state of a server, over whatever is under way."""

from __future__ import annotations

from kilonova.compute import quota_usage, states
from kilonova.compute.quota_usage import Amount
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.engine import store
from kilonova.errors import NotFound
from kilonova.runtime import Runtime


async def reset_state(rt: Runtime, ctx: RequestContext, server: Server, vm_state: str) -> None:
    """Set `vm_state` and free the slot; the operation that held it stops at its next commit.

    One that was softly deleted is its owner's again, and counts, whatever their quota.
    """

    async def work(tx: Tx) -> None:
        now = rt.world.now()
        before = await servers.get(tx, server.uuid)
        kept = before is not None and before.vm_state == states.SOFT_DELETED
        if kept:
            # The project's lock comes before the server's.
            await quota_usage.count(tx, server.project_id, Amount(1, server.vcpus, server.memory_mb))
        current = await servers.get(tx, server.uuid, lock=True)
        if current is None:
            raise NotFound(f"Instance {server.uuid} could not be found.")
        if kept != (current.vm_state == states.SOFT_DELETED):
            raise _ChangedMeanwhile
        if current.operation_id is not None:
            await store.supersede(tx, current.operation_id, now, "An administrator reset the server's state.")
            await store.supersede_queued(tx, server.uuid, now, "An administrator reset the server's state.")
        await servers.update(
            tx,
            server.uuid,
            vm_state=vm_state,
            task_state=None,
            deleted_at=None,
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

    while True:
        try:
            await rt.db.write(work)
        except _ChangedMeanwhile:
            continue
        return


class _ChangedMeanwhile(Exception):
    """Roll back: it has become a softly deleted one, or is none any more."""
