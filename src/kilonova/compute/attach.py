"""Attaching and detaching interfaces of a server that is there: judged first, then queued as operations."""

from __future__ import annotations

from typing import Any

from kilonova.compute import interfaces, network_info, states
from kilonova.compute.networks import PortRequest, available, check_network, check_port, room_for_ports, visible
from kilonova.compute.servers.submit import check_lock, submit_attach, wrong_state
from kilonova.context import RequestContext
from kilonova.db.servers import Server
from kilonova.engine import store
from kilonova.errors import Conflict, Invalid, KilonovaError, NotFound, NotImplementedHere
from kilonova.networking import Networking
from kilonova.runtime import Runtime
from kilonova.workflows.steps import ports

FROM = (states.ACTIVE, states.PAUSED, states.STOPPED)
LOOKS = (0.01, 0.02, 0.05, 0.1, 0.25)
"""Seconds between looks at an operation that somebody waits for; the last one repeats."""


def networking(rt: Runtime) -> Networking:
    """Raises NotImplementedHere in a cloud without Networking."""
    if rt.network is None:
        raise NotImplementedHere("This cloud has no Networking service.")
    return rt.network


async def attach(
    rt: Runtime,
    ctx: RequestContext,
    server: Server,
    *,
    network_id: str | None = None,
    port_id: str | None = None,
    fixed_ip: str | None = None,
    tag: str | None = None,
    external_allowed: bool = False,
) -> int:
    """Begin to attach a user's port, or a new one on a network; with neither on the project's only network.

    Returns the operation's id. Raises NotFound, Invalid, Conflict, Forbidden, OverQuota; nothing has changed then.
    """
    api = networking(rt)
    _check_state(ctx, server, "attach_interface")
    if port_id is not None:
        network_id = await _own_port(api, ctx, server, port_id)
    else:
        network_id = await _network(api, server, network_id, external_allowed)
        if fixed_ip is not None:
            await _check_free(api, network_id, fixed_ip)
        await room_for_ports(api, server.project_id, 1)
    request: PortRequest = {"network_id": network_id, "port_id": port_id, "fixed_ip": fixed_ip, "tag": tag}
    request["place"] = rt.world.uuid()

    def change(current: Server) -> dict[str, Any]:
        known = ports.requests_of(current)
        if port_id is not None and any(other["port_id"] == port_id for other in known):
            raise Conflict(f"Port {port_id} is still in use.")
        # What is asked for stands in the row from now on: a delete that comes in between finds the port by it.
        return {"requested_networks": [*known, request]}

    return await submit_attach(
        rt, ctx, server, kind="attach_interface", action="attach_interface", vm_states=FROM,
        data={"request": request}, change=change,
    )  # fmt: skip


async def detach(rt: Runtime, ctx: RequestContext, server: Server, port_id: str) -> int:
    """Begin to detach a port; returns the operation's id. Raises NotFound, Conflict."""
    networking(rt)
    _check_state(ctx, server, "detach_interface")
    mac = next((nic.mac for nic in network_info.nics_of(server.network_info) if nic.port_id == port_id), None)
    if mac is None:
        found = await interfaces.of_server(rt, server)
        mac = next((port["mac_address"] for port in found if port["id"] == port_id), None)
    if mac is None:
        raise NotFound(f"Port id {port_id} could not be found.")
    data = {"port_id": port_id, "mac": mac}
    return await submit_attach(
        rt, ctx, server, kind="detach_interface", action="detach_interface", vm_states=FROM, data=data,
    )  # fmt: skip


async def ended(rt: Runtime, operation_id: int, timeout: float) -> bool:
    """Wait for an operation; False when it goes on after `timeout` seconds.

    Raises Invalid when what was asked for cannot be done, KilonovaError when it failed otherwise.
    """
    until = rt.world.monotonic() + timeout
    looks = 0
    while True:
        found = await store.outcome(rt.db, operation_id)
        state, error, data = found or ("superseded", "The server is gone.", {})
        if state == "done":
            return True
        if state in ("failed", "stuck"):
            kind = data.get("failure", {}).get("kind")
            raise (Invalid if kind == "invalid" else KilonovaError)(error or "It failed.")
        if state == "superseded":
            raise Conflict(error or "Something else was begun with the server.")
        if rt.world.monotonic() >= until:
            return False
        await rt.world.sleep(LOOKS[min(looks, len(LOOKS) - 1)])
        looks += 1


async def attached_port(rt: Runtime, operation_id: int) -> str:
    """The port of an operation that has attached one."""
    found = await store.outcome(rt.db, operation_id)
    assert found is not None
    return str(found[2]["port_id"])


def _check_state(ctx: RequestContext, server: Server, action: str) -> None:
    """Said before anything is looked up; what counts is the state when the operation is queued."""
    check_lock(ctx, server)
    if server.vm_state not in FROM or server.task_state is not None or server.deleting:
        raise wrong_state(server, server.uuid, action, FROM)


async def _own_port(api: Networking, ctx: RequestContext, server: Server, port_id: str) -> str:
    try:
        port = await api.show("ports", port_id)
    except NotFound:
        raise NotFound(f"Port id {port_id} could not be found.") from None
    check_port(port, server.project_id, ctx.is_admin)
    return str(port["network_id"])


async def _network(api: Networking, server: Server, network_id: str | None, external_allowed: bool) -> str:
    if network_id is not None:
        try:
            network = (await visible(api, server.project_id, [network_id]))[network_id]
        except Invalid as error:
            raise NotFound(error.message) from None
    else:
        found = await available(api, server.project_id, ready=False)
        if not found:
            raise Invalid(
                f"No specific network was requested and none are available for project '{server.project_id}'."
            )
        if len(found) > 1:
            raise Invalid(
                "More than one possible network found. Specify network ID(s) to select which one(s) to connect to."
            )
        (network,) = found
    check_network(network, external_allowed, with_groups=False)
    return str(network["id"])


async def _check_free(api: Networking, network_id: str, address: str) -> None:
    for port in await api.find("ports", {"network_id": network_id, "fixed_ips": f"ip_address={address}"}):
        if any(ip["ip_address"] == address for ip in port["fixed_ips"]):
            raise Conflict(f"Fixed IP address {address} is already in use on instance {port.get('device_id')}.")
