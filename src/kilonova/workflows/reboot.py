"""Reboot, soft or hard: once per operation, however often the command arrives."""

from __future__ import annotations

from kilonova.agent.commands import RebootArgs
from kilonova.compute import states
from kilonova.db.engine import Tx
from kilonova.engine.model import Data, Run, Step, Workflow
from kilonova.workflows.env import Env
from kilonova.workflows.steps import server as shared


async def reboot(run: Run[Env]) -> Data:
    server = await shared.load(run)
    assert server.host is not None
    settings = run.env.rt.settings
    hard = bool(run.data["hard"])
    args = RebootArgs(
        uuid=server.uuid,
        marker=str(run.id),
        hard=hard,
        timeout=settings.reboot_timeout,
        spec=shared.spec(server, settings),
    )
    return await shared.command(run, "reboot", server.host, "reboot", args)


async def succeed(tx: Tx, run: Run[Env]) -> None:
    await shared.settle(
        tx,
        run,
        vm_state=states.ACTIVE,
        power_state=run.data.pop("power_state"),
        desired_power=states.POWER_RUNNING,
        fault=None,
    )


async def fail(tx: Tx, run: Run[Env]) -> None:
    await shared.settle(tx, run, vm_state=states.ERROR, fault=shared.fault(run))


WORKFLOW = Workflow(
    kind="reboot",
    steps=(Step(name="reboot", effect=reboot, deadline=600.0),),
    succeed=succeed,
    fail=fail,
)
