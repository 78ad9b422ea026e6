"""Boot with networks: as `boot`, with ports made before the guest is, and wired before it starts."""

from __future__ import annotations

from kilonova.agent.commands import BootArgs, StartArgs
from kilonova.compute.networks import DEFAULT_GROUP
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.engine.model import Data, Run, Step, Workflow
from kilonova.workflows import boot
from kilonova.workflows.env import Env
from kilonova.workflows.steps import ports
from kilonova.workflows.steps import server as shared


async def make_ports(run: Run[Env]) -> Data:
    server = await _server(run)
    run.host = server.host
    api = ports.networking(run)
    async with ports.patiently(run, "to make and bind ports"):
        requests = server.requested_networks
        if requests == "auto":
            requests = [{"network_id": await api.auto_network(server.project_id), "port_id": None, "fixed_ip": None}]
        places = [str(number) for number in range(len(requests))]
        found = await ports.ensure(run, server, requests, run.data["groups"], places)
        # A port that we have just made can have no floating IP.
        nics, names = await ports.describe(api, server, found, floating=bool(ports.foreign_ports(server)))
    run.scratch["nics"] = nics
    run.scratch["groups"] = names or [DEFAULT_GROUP]
    return {}


async def keep_ports(tx: Tx, run: Run[Env], result: Data) -> None:
    await ports.cache(tx, run, run.scratch["nics"], run.scratch["groups"])


async def forget_ports(tx: Tx, run: Run[Env], result: Data) -> None:
    await ports.cache(tx, run, ())


async def build(run: Run[Env]) -> Data:
    server = await _server(run)
    settings, host = run.env.rt.settings, run.data["host"]
    files = (run.operation.secrets or {}).get("files")
    spec = shared.spec(server, settings, files)
    args = BootArgs(spec=spec, start=False)
    # Whoever wires ports may be done before the host says that it has plugged them.
    with run.env.plugging.expect(server.uuid) as news:
        built = await shared.command(run, "prepare", host, "prepare", args, with_secrets=True)
        with run.waiting(run.env.rt.world, "networking", "until the ports are wired"):
            await ports.wait_wired(run, server, [nic.port_id for nic in spec.nics], news)
    # Injected files are on the config drive by now.
    start = StartArgs(spec=shared.spec(server, settings))
    started = await shared.command(run, "start", host, "start", start)
    return {"built": {**built, "power_state": started["power_state"]}}


async def _server(run: Run[Env]) -> Server:
    known = boot.placed(run)
    if known is None:
        return await shared.load(run)
    return ports.with_nics(known, run.scratch["nics"]) if "nics" in run.scratch else known


SCHEDULE, BUILD = boot.WORKFLOW.steps

WORKFLOW = Workflow(
    kind="boot_with_ports",
    steps=(
        SCHEDULE,
        Step(
            name="ports", effect=make_ports, commit=keep_ports, undo=ports.release_all, undo_commit=forget_ports,
            deadline=300.0,
        ),
        Step(name="build", effect=build, undo=BUILD.undo, undo_commit=BUILD.undo_commit, deadline=1800.0),
    ),
    succeed=boot.succeed,
    fail=boot.fail,
    retry_from="schedule",
    max_attempts=boot.WORKFLOW.max_attempts,
)  # fmt: skip
