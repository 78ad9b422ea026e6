"""Delete: the host lets go of the guest, then everything the server held is given back at once."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.compute import claims, quota_usage, states
from kilonova.compute.quota_usage import Amount
from kilonova.console import tokens
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import tags
from kilonova.engine.model import Data, Fenced, Run, Step, Workflow
from kilonova.workflows.env import Env
from kilonova.workflows.steps import ports
from kilonova.workflows.steps import server as shared
from kilonova.workflows.steps.destroy import NETWORK, bury, destroy_on


async def destroy(run: Run[Env]) -> Data:
    run.scratch["server"] = server = await shared.load(run)
    found = await destroy_on(run, server.host, "destroy") if server.host else {}
    # A pending change may have made ports that the row does not tell of: what was asked for decides.
    if run.env.rt.network is not None and ports.may_have_ports(server):
        found["ports"] = await ports.let_go(run, server)
    return found


async def bury_all(tx: Tx, run: Run[Env], result: Data) -> None:
    await bury(tx, run, result)
    if result.get("ports") == "left":
        await bury(tx, run, {"tombstone": NETWORK})


async def succeed(tx: Tx, run: Run[Env]) -> None:
    # What it holds is changed by whoever has its slot; that this is still us the last change makes sure of.
    server: Server | None = run.scratch.get("server") or await servers.get(tx, run.server_uuid)
    if server is None:
        raise Fenced
    now = run.env.rt.world.now()
    if server.vm_state != states.SOFT_DELETED:
        await quota_usage.give_back(tx, server.project_id, Amount(1, server.vcpus, server.memory_mb))
    if server.claimed:
        await claims.release(tx, server)
    await shared.settle(
        tx,
        run,
        vm_state=states.DELETED,
        power_state=states.POWER_NOSTATE,
        claimed=False,
        claim=None,
        deleting=False,
        deleted=server.id,
        deleted_at=now,
        terminated_at=now,
        user_data=None,
        network_info=None,
        addresses={},
    )
    await tokens.revoke(tx, run.server_uuid)
    await tx.execute(sa.delete(tags).where(tags.c.resource_id == run.server_uuid))


async def fail(tx: Tx, run: Run[Env]) -> None:
    server = await servers.get(tx, run.server_uuid)
    kept = server is not None and server.vm_state == states.SOFT_DELETED
    state = states.SOFT_DELETED if kept else states.ERROR
    await shared.settle(tx, run, vm_state=state, deleting=False, fault=shared.fault(run))


WORKFLOW = Workflow(
    kind="delete",
    steps=(Step(name="destroy", effect=destroy, commit=bury_all, deadline=600.0),),
    succeed=succeed,
    fail=fail,
)
