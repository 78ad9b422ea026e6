"""Deletion that can be taken back for a while (`reclaim_instance_interval`)."""

from __future__ import annotations

from kilonova.compute import quota_usage, states
from kilonova.compute.quota_usage import Amount
from kilonova.compute.servers import delete as deletion
from kilonova.compute.servers.submit import check_lock, submit, wake, write_once, wrong_state
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.engine import store
from kilonova.runtime import Runtime

_FROM = (states.ACTIVE, states.PAUSED, states.SUSPENDED, states.STOPPED, states.RESCUED, states.ERROR)
_OVER = (
    states.REBOOTING, states.REBOOTING_HARD, states.POWERING_OFF, states.POWERING_ON, states.PAUSING,
    states.UNPAUSING, states.SUSPENDING, states.RESUMING, states.RESTORING,
)  # fmt: skip
"""Tasks that it pushes aside. What changes disks or ports goes to its end first."""


async def delete(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    """Delete softly what can be kept, where that is wished for; else for good, as what never ran on a host.

    Asking again is no error. Raises Conflict when locked, or while a task has to end first.
    """
    kept = server.host is not None and server.launched_at is not None and not server.deleting
    if rt.settings.reclaim_instance_interval <= 0 or not kept:
        await deletion.delete(rt, ctx, server)
        return
    check_lock(ctx, server)
    if server.vm_state == states.SOFT_DELETED or server.task_state == states.SOFT_DELETING:
        return
    await submit(
        rt, ctx, server, kind="soft_delete", action="delete", task_state=states.SOFT_DELETING, vm_states=_FROM,
        over_tasks=_OVER, values={"desired_power": states.POWER_SHUTDOWN, "deleted_at": rt.world.now()},
    )  # fmt: skip


async def restore(rt: Runtime, ctx: RequestContext, server: Server) -> None:
    """From now on it is its owner's again, and counts; it is started. Raises OverQuota, Conflict."""
    check_lock(ctx, server)
    c = instances.c

    async def work(tx: Tx) -> int:
        now = rt.world.now()
        if server.vm_state != states.SOFT_DELETED:
            raise wrong_state(server, server.uuid, "restore", (states.SOFT_DELETED,))
        limits = await quota_usage.read_limits(tx, server.project_id, server.user_id, rt.settings.quota)
        amount = Amount(1, server.vcpus, server.memory_mb)
        await quota_usage.take_for(tx, server.project_id, server.user_id, amount, limits)
        operation_id = await store.insert(
            tx,
            kind="restore",
            action="restore",
            server_uuid=server.uuid,
            project_id=ctx.project_id,
            user_id=ctx.user_id,
            request_id=ctx.request_id,
            now=now,
        )
        changed = await servers.update(
            tx,
            server.uuid,
            c.operation_id.is_(None),
            c.vm_state == states.SOFT_DELETED,
            c.deleting.is_(False),
            operation_id=operation_id,
            vm_state=states.STOPPED,
            task_state=states.RESTORING,
            deleted_at=None,
            desired_power=states.POWER_RUNNING,
            generation=c.generation + 1,
            updated_at=now,
        )
        if not changed:
            current = await servers.get(tx, server.uuid)
            raise wrong_state(current, server.uuid, "restore", (states.SOFT_DELETED,))
        return operation_id

    async def find(tx: Tx) -> int | None:
        started = await store.started(tx, [server.uuid], "restore", ctx.request_id)
        return started[-1][1] if started else None

    await wake(rt, await write_once(rt.db, work, find))
