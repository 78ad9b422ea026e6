"""Detach an interface: the guest lets go of the NIC, then its port is deleted, or given back when it is the user's."""

from __future__ import annotations

import structlog

from kilonova.agent.commands import AttachArgs
from kilonova.compute import network_info
from kilonova.db.engine import Tx
from kilonova.engine.model import Aborted, Data, Run, Step, Workflow
from kilonova.errors import KilonovaError, Transient
from kilonova.workflows.attach_interface import detach_args, fail, held, others, succeed, without
from kilonova.workflows.env import Env
from kilonova.workflows.steps import ports
from kilonova.workflows.steps import server as shared

log = structlog.get_logger()

LETTING_GO = 150.0
"""Seconds in which the guest is asked again and again; one that boots, or knows no hot-plug, stays deaf."""


async def detach(run: Run[Env]) -> Data:
    server = await shared.load(run)
    assert server.host is not None
    args = detach_args(run, server, run.data["port_id"], run.data["mac"])
    await shared.command(run, "detach", server.host, "detach", args)
    return {}


async def attach_again(run: Run[Env]) -> Data:
    """Undo: the guest has the NIC as before. A host that is away plugs it at the next start."""
    server = await shared.load(run)
    port_id = run.data["port_id"]
    assert server.host is not None
    if not any(nic.port_id == port_id for nic in network_info.nics_of(server.network_info)):
        return {}
    args = AttachArgs(spec=shared.spec(server, run.env.rt.settings), port_id=port_id)
    try:
        await shared.command(run, "detach", server.host, "attach", args)
    except Transient:
        raise
    except (KilonovaError, Aborted) as error:
        log.warning("a host keeps a NIC away for now", host=server.host, server=server.uuid, error=str(error))
    return {}


async def release_port(run: Run[Env]) -> Data:
    server = await shared.load(run)
    api, port_id = ports.networking(run), run.data["port_id"]
    run.host = server.host
    async with ports.patiently(run, "to let the port go"):
        if port_id in ports.foreign_ports(server):
            await ports.unbind(api, port_id, server.uuid)
        else:
            await ports.delete_ours(api, port_id, server.uuid)
    return {}


async def forget_port(tx: Tx, run: Run[Env], result: Data) -> None:
    server = await held(tx, run)
    port_id, mac = run.data["port_id"], run.data["mac"]
    asked = [r["place"] for r in ports.requests_of(server) if ports.is_of(server.uuid, r, port_id, mac)]
    await ports.cache(tx, run, others(server, port_id), requested_networks=without(server, asked[0] if asked else None))


WORKFLOW = Workflow(
    kind="detach_interface",
    steps=(
        Step(name="detach", effect=detach, undo=attach_again, deadline=LETTING_GO),
        Step(name="port", effect=release_port, commit=forget_port, deadline=120.0),
    ),
    succeed=succeed,
    fail=fail,
)
