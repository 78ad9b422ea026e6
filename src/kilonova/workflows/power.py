"""Stop, start, pause, unpause, suspend, resume: one command to the host, one new state."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kilonova.agent.commands import ServerArgs, StartArgs, StopArgs
from kilonova.compute import states
from kilonova.console import tokens
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.engine.model import Data, Effect, Finish, Run, Step, Workflow
from kilonova.workflows.env import Env
from kilonova.workflows.steps import server as shared

MakeArgs = Callable[[Run[Env], Server], msgspec.Struct]


def _just_which(run: Run[Env], server: Server) -> msgspec.Struct:
    return ServerArgs(uuid=server.uuid)


def _with_spec(run: Run[Env], server: Server) -> msgspec.Struct:
    return StartArgs(spec=shared.spec(server, run.env.rt.settings))


def _stop_args(run: Run[Env], server: Server) -> msgspec.Struct:
    return StopArgs(uuid=server.uuid, timeout=run.env.rt.settings.shutdown_timeout)


def _effect(verb: str, make_args: MakeArgs) -> Effect[Env]:
    async def effect(run: Run[Env]) -> Data:
        server = await shared.load(run)
        assert server.host is not None
        return await shared.command(run, verb, server.host, verb, make_args(run, server))

    return effect


def _succeed(vm_state: str) -> Finish[Env]:
    async def succeed(tx: Tx, run: Run[Env]) -> None:
        if vm_state in (states.STOPPED, states.SUSPENDED):
            await tokens.revoke(tx, run.server_uuid)
        await shared.settle(tx, run, vm_state=vm_state, power_state=run.data.pop("power_state"), fault=None)

    return succeed


async def fail(tx: Tx, run: Run[Env]) -> None:
    # The guest is as it was, or the power-state reconciler finds out otherwise.
    await shared.settle(tx, run)


def _workflow(verb: str, make_args: MakeArgs, vm_state: str, deadline: float = 300.0) -> Workflow[Env]:
    return Workflow(
        kind=verb,
        steps=(Step(name=verb, effect=_effect(verb, make_args), deadline=deadline),),
        succeed=_succeed(vm_state),
        fail=fail,
    )


WORKFLOWS = (
    _workflow("stop", _stop_args, states.STOPPED, deadline=900.0),
    _workflow("start", _with_spec, states.ACTIVE),
    _workflow("pause", _just_which, states.PAUSED),
    _workflow("unpause", _just_which, states.ACTIVE),
    _workflow("suspend", _just_which, states.SUSPENDED, deadline=900.0),
    _workflow("resume", _with_spec, states.ACTIVE, deadline=900.0),
)
