"""Attach an interface: its port is made or bound first, then the guest gets the NIC, running or not."""

from __future__ import annotations

import structlog

from kilonova.agent.commands import AttachArgs, DetachArgs
from kilonova.compute import network_info
from kilonova.compute.networks import PortRequest
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.engine.model import Aborted, Data, Fenced, Run, Step, Workflow
from kilonova.errors import KilonovaError, Transient
from kilonova.nic import Nic
from kilonova.workflows.env import Env
from kilonova.workflows.steps import ports
from kilonova.workflows.steps import server as shared

log = structlog.get_logger()


async def make_port(run: Run[Env]) -> Data:
    server = await shared.load(run)
    run.host = server.host
    api, request = ports.networking(run), run.data["request"]
    async with ports.patiently(run, "to make and bind the port"):
        found = await ports.ensure(run, server, [request], (), [request["place"]])
        (nic,), _ = await ports.describe(api, server, found, floating=request["port_id"] is not None)
    run.scratch["nic"] = nic
    return {"port_id": nic.port_id, "mac": nic.mac}


async def keep_port(tx: Tx, run: Run[Env], result: Data) -> None:
    nic = run.scratch["nic"]
    server = await held(tx, run)
    await ports.cache(tx, run, (*others(server, nic.port_id), nic))


async def release_port(run: Run[Env]) -> Data:
    """Undo: the server has not got this port."""
    server = await shared.load(run)
    api, request = ports.networking(run), run.data["request"]
    async with ports.patiently(run, "to let the port go"):
        if request["port_id"]:
            await ports.unbind(api, request["port_id"], server.uuid)
        else:
            for port in await api.find("ports", {"device_id": server.uuid}):
                if ports.is_of(server.uuid, request, port["id"], port["mac_address"]):
                    await api.delete("ports", port["id"])
    return {}


async def forget_port(tx: Tx, run: Run[Env], result: Data) -> None:
    server, request = await held(tx, run), run.data["request"]
    left = [
        nic
        for nic in network_info.nics_of(server.network_info)
        if not ports.is_of(server.uuid, request, nic.port_id, nic.mac)
    ]
    await ports.cache(tx, run, left, requested_networks=without(server, request["place"]))


async def attach(run: Run[Env]) -> Data:
    server = await shared.load(run)
    assert server.host is not None
    args = AttachArgs(spec=shared.spec(server, run.env.rt.settings), port_id=run.data["port_id"])
    await shared.command(run, "attach", server.host, "attach", args)
    return {}


async def take_back(run: Run[Env]) -> Data:
    """Undo: the guest has no such NIC. What a host cannot take back now is not there any more at the next start."""
    server = await shared.load(run)
    port_id, mac = run.data["port_id"], run.data["mac"]
    assert server.host is not None
    try:
        await shared.command(run, "attach", server.host, "detach", detach_args(run, server, port_id, mac))
    except Transient:
        raise
    except (KilonovaError, Aborted) as error:
        log.warning("a host keeps a NIC for now", host=server.host, server=server.uuid, error=str(error))
    return {}


async def succeed(tx: Tx, run: Run[Env]) -> None:
    await shared.pass_on(tx, run)


async def fail(tx: Tx, run: Run[Env]) -> None:
    await shared.pass_on(tx, run, fault=shared.fault(run))


# -- shared with detaching


async def held(tx: Tx, run: Run[Env]) -> Server:
    """The server's row until the end of the transaction. Raises Fenced."""
    server = await servers.get(tx, run.server_uuid, lock=True)
    if server is None or server.operation_id != run.id:
        raise Fenced
    return server


def others(server: Server, port_id: str) -> tuple[Nic, ...]:
    """The NICs of other ports than this one."""
    return tuple(nic for nic in network_info.nics_of(server.network_info) if nic.port_id != port_id)


def without(server: Server, place: str | None) -> list[PortRequest]:
    """What the server's ports were asked for as, but the one at this place."""
    return [request for request in ports.requests_of(server) if request["place"] != place]


def detach_args(run: Run[Env], server: Server, port_id: str, mac: str) -> DetachArgs:
    left = ports.with_nics(server, others(server, port_id))
    return DetachArgs(spec=shared.spec(left, run.env.rt.settings), port_id=port_id, mac=mac)


WORKFLOW = Workflow(
    kind="attach_interface",
    steps=(
        Step(name="port", effect=make_port, commit=keep_port, undo=release_port, undo_commit=forget_port, deadline=120),
        Step(name="attach", effect=attach, undo=take_back, deadline=180.0),
    ),
    succeed=succeed,
    fail=fail,
)
