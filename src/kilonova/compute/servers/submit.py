"""Taking a server's slot: the operation's row and the server's change in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kilonova.bus.hints import hint
from kilonova.bus.messages import Wake
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import CommitUnknown, Database, Tx, Work
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.db.tables.operations import QUEUED
from kilonova.engine import store
from kilonova.errors import Conflict, NotFound
from kilonova.runtime import Runtime

T = TypeVar("T")


async def submit(
    rt: Runtime,
    ctx: RequestContext,
    server: Server,
    *,
    kind: str,
    action: str,
    task_state: str,
    vm_states: Sequence[str],
    over_tasks: Sequence[str] = (),
    data: dict[str, Any] | None = None,
    secrets: dict[str, Any] | None = None,
    values: dict[str, Any] | None = None,
) -> int:
    """Start an exclusive operation on the server and return its id.

    `vm_states`: those in which it may start. `over_tasks`: task states whose operation it
    pushes aside (a hard reboot over a soft one). Raises Conflict when locked or in another
    state, NotFound when the server has gone meanwhile.

    Behind operations of class 'attach', which have no task state, it waits for its turn.
    """
    check_lock(ctx, server)
    if server.host is None and server.vm_state in vm_states:
        raise Conflict(f"Instance {server.uuid} has no host: it was never built")
    c = instances.c

    async def work(tx: Tx) -> int:
        now = rt.world.now()
        operation_id = await store.insert(
            tx,
            kind=kind,
            action=action,
            server_uuid=server.uuid,
            project_id=ctx.project_id,
            user_id=ctx.user_id,
            request_id=ctx.request_id,
            now=now,
            data=data,
            secrets=secrets,
        )
        changes = {"task_state": task_state, "generation": c.generation + 1, "updated_at": now, **(values or {})}
        if server.task_state not in over_tasks and await servers.update(
            tx,
            server.uuid,
            c.operation_id.is_(None),
            c.vm_state.in_(vm_states),
            c.deleting.is_(False),
            operation_id=operation_id,
            **changes,
        ):
            return operation_id
        current = await servers.get(tx, server.uuid, lock=True)
        if current is None or not may_queue(current, vm_states, over_tasks):
            raise wrong_state(current, server.uuid, action, vm_states)
        holder = current.operation_id
        if current.task_state is not None:
            # One with a task state has the slot, or stands last among those that wait for it.
            waiting = await store.queued(tx, server.uuid)
            aside = waiting[-1] if waiting else holder
            if aside is not None:
                await store.supersede(tx, aside, now, f"Pushed aside by '{action}'.")
            holder = None if aside == holder else holder
        if holder is None:
            changes["operation_id"] = operation_id
        else:
            await store.put_in_queue(tx, operation_id)
        await servers.update(tx, server.uuid, **changes)
        return operation_id

    async def find(tx: Tx) -> int | None:
        started = await store.started(tx, [server.uuid], kind, ctx.request_id)
        return started[-1][1] if started else None

    operation_id = await write_once(rt.db, work, find)
    await wake(rt, operation_id)
    return operation_id


def may_queue(server: Server, vm_states: Sequence[str], over_tasks: Sequence[str] = ()) -> bool:
    """Whether the server is free, or what has its slot lets others queue behind it or push it aside."""
    if server.vm_state not in vm_states or server.deleting:
        return False
    return server.task_state is None or server.task_state in over_tasks


async def submit_attach(
    rt: Runtime,
    ctx: RequestContext,
    server: Server,
    *,
    kind: str,
    action: str,
    vm_states: Sequence[str],
    data: dict[str, Any],
    change: Callable[[Server], dict[str, Any]] = lambda server: {},
) -> int:
    """Start an operation of class 'attach', or queue it behind others of that class; returns its id.

    It has no task state. `change` is given the server as it is now, and returns columns of it to be set at once.
    Raises Conflict, NotFound.
    """
    check_lock(ctx, server)

    async def work(tx: Tx) -> int:
        now = rt.world.now()
        current = await servers.get(tx, server.uuid, lock=True)
        if current is None or not may_queue(current, vm_states):
            raise wrong_state(current, server.uuid, action, vm_states)
        if current.host is None:
            raise Conflict(f"Instance {server.uuid} has no host: it was never built")
        free = current.operation_id is None
        columns = change(current)
        operation_id = await store.insert(
            tx,
            kind=kind,
            action=action,
            server_uuid=server.uuid,
            project_id=ctx.project_id,
            user_id=ctx.user_id,
            request_id=ctx.request_id,
            now=now,
            data=data,
            state="ready" if free else QUEUED,
        )
        if free:
            columns["operation_id"] = operation_id
        await servers.update(tx, server.uuid, generation=current.generation + 1, updated_at=now, **columns)
        return operation_id

    async def find(tx: Tx) -> int | None:
        started = await store.started(tx, [server.uuid], kind, ctx.request_id)
        return started[-1][1] if started else None

    operation_id = await write_once(rt.db, work, find)
    await wake(rt, operation_id)
    return operation_id


async def write_once(db: Database, work: Work[T], find: Work[T | None]) -> T:
    """Commit `work` once. When the answer was lost, what `find` finds counts; it is repeated if that is None."""
    try:
        return await db.write(work)
    except CommitUnknown:
        found = await db.read(find)
        return await db.write(work) if found is None else found


async def wake(rt: Runtime, operation_id: int) -> None:
    """Tell the conductors; should they not hear it, they find the row by themselves."""
    await hint(rt.bus, "conductor", Wake(operation_id=operation_id))


def check_lock(ctx: RequestContext, server: Server) -> None:
    if server.locked and not ctx.is_admin:
        raise Conflict(f"Instance {server.uuid} is locked")


def wrong_state(server: Server | None, uuid: str, action: str, vm_states: Sequence[str]) -> Exception:
    if server is None:
        return NotFound(f"Instance {uuid} could not be found.")
    attribute, state = (
        ("vm_state", server.vm_state) if server.vm_state not in vm_states else ("task_state", server.task_state)
    )
    return Conflict(f"Cannot '{action}' instance {uuid} while it is in {attribute} {state}")
