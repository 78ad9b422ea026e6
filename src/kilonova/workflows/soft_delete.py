"""Soft delete and restore: the guest is turned off and kept, with its place on its host, until it is restored or goes.

A server that is softly deleted does not count against its project's quota.
"""

from __future__ import annotations

from kilonova.agent.commands import StartArgs, StopArgs
from kilonova.compute import quota_usage, states
from kilonova.compute.quota_usage import Amount
from kilonova.console import tokens
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.engine.model import Data, Fenced, Run, Step, Workflow
from kilonova.workflows.env import Env
from kilonova.workflows.steps import server as shared


async def stop(run: Run[Env]) -> Data:
    server = await shared.load(run)
    assert server.host is not None
    if not await run.env.hosts.is_up(server.host):
        # Should the guest be there when the host comes back, the power-state reconciler has it stopped.
        return {"power_state": states.POWER_NOSTATE}
    return await shared.command(run, "stop", server.host, "stop", StopArgs(uuid=server.uuid, clean=False))


async def deleted(tx: Tx, run: Run[Env]) -> None:
    await _keep(tx, run, power_state=run.data.pop("power_state"))


async def not_stopped(tx: Tx, run: Run[Env]) -> None:
    # Who deleted it was told so. The power-state reconciler has the guest stopped, should it run.
    await _keep(tx, run)


async def _keep(tx: Tx, run: Run[Env], **values: int) -> None:
    server = await servers.get(tx, run.server_uuid)
    if server is None:
        raise Fenced
    if server.vm_state != states.SOFT_DELETED:
        await quota_usage.give_back(tx, server.project_id, Amount(1, server.vcpus, server.memory_mb))
    await shared.settle(
        tx,
        run,
        vm_state=states.SOFT_DELETED,
        deleted_at=server.deleted_at or run.env.rt.world.now(),
        fault=None,
        **values,
    )
    await tokens.revoke(tx, run.server_uuid)


async def start(run: Run[Env]) -> Data:
    server = await shared.load(run)
    assert server.host is not None
    args = StartArgs(spec=shared.spec(server, run.env.rt.settings))
    return await shared.command(run, "start", server.host, "start", args)


async def restored(tx: Tx, run: Run[Env]) -> None:
    await shared.settle(tx, run, vm_state=states.ACTIVE, power_state=run.data.pop("power_state"), fault=None)


async def not_started(tx: Tx, run: Run[Env]) -> None:
    # It is its owner's again since the restore was accepted, and off.
    await shared.settle(tx, run, fault=shared.fault(run))


SOFT_DELETE = Workflow(
    kind="soft_delete",
    steps=(Step(name="stop", effect=stop, deadline=300.0),),
    succeed=deleted,
    fail=not_stopped,
)
RESTORE = Workflow(
    kind="restore",
    steps=(Step(name="start", effect=start, deadline=300.0),),
    succeed=restored,
    fail=not_started,
)
WORKFLOWS = (SOFT_DELETE, RESTORE)
