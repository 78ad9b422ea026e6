"""Rebuild: the same server, host and claim; a new root disk from an image."""

from __future__ import annotations

from kilonova.agent.commands import RebuildArgs
from kilonova.compute import states
from kilonova.console import tokens
from kilonova.db.engine import Tx
from kilonova.engine.model import Data, Run, Step, Workflow
from kilonova.workflows.env import Env
from kilonova.workflows.steps import server as shared


async def rebuild(run: Run[Env]) -> Data:
    server = await shared.load(run)
    assert server.host is not None
    args = RebuildArgs(
        spec=shared.spec(server, run.env.rt.settings), marker=str(run.id), start=not run.data.get("stopped")
    )
    return {"built": await shared.command(run, "rebuild", server.host, "rebuild", args, with_secrets=True)}


async def succeed(tx: Tx, run: Run[Env]) -> None:
    await tokens.revoke(tx, run.server_uuid)
    built = run.data.pop("built")
    await shared.settle(
        tx,
        run,
        vm_state=states.STOPPED if run.data.get("stopped") else states.ACTIVE,
        power_state=built["power_state"],
        launched_at=run.env.rt.world.now(),
        machine_type=built.get("machine_type"),
        cpu_model=built.get("cpu_model"),
        guest_password=None,
        fault=None,
    )


async def fail(tx: Tx, run: Run[Env]) -> None:
    await shared.settle(tx, run, vm_state=states.ERROR, fault=shared.fault(run))


WORKFLOW = Workflow(
    kind="rebuild",
    steps=(Step(name="rebuild", effect=rebuild, deadline=1800.0),),
    succeed=succeed,
    fail=fail,
)
