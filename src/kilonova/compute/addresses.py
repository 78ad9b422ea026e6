"""Addresses, floating ones and security groups of a server that is there: changed in Networking, then shown."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress

from kilonova.bus.hints import hint
from kilonova.bus.messages import NetworkEvent
from kilonova.compute import interfaces, network_info
from kilonova.compute.attach import networking
from kilonova.compute.networks import find_group
from kilonova.compute.refresh import refresh
from kilonova.compute.servers.submit import check_lock
from kilonova.context import RequestContext
from kilonova.db.servers import Server
from kilonova.errors import Conflict, Forbidden, Invalid, KilonovaError, NotFound, OverQuota, Unavailable
from kilonova.networking import Document
from kilonova.runtime import Runtime

NO_GROUPS = "Network requires port_security_enabled and subnet associated in order to apply security groups."


async def add_fixed_ip(rt: Runtime, ctx: RequestContext, server: Server, network_id: str) -> None:
    """One more address on a network that the server has a port on. Raises NotFound, Invalid, Conflict."""
    check_lock(ctx, server)
    api = networking(rt)
    found = [port for port in await interfaces.of_server(rt, server) if port["network_id"] == network_id]
    if not found:
        raise NotFound(f"Network could not be found for instance {server.uuid}.")
    failure: KilonovaError | None = None
    for subnet in await api.find("subnets", {"network_id": network_id}):
        try:
            fixed_ips = [*found[0]["fixed_ips"], {"subnet_id": subnet["id"]}]
            await api.update("ports", found[0]["id"], {"fixed_ips": fixed_ips})
            await show(rt, server.uuid)
            return
        except (Invalid, Conflict, OverQuota) as error:
            # This subnet is full; another of the network may not be.
            failure = error
    raise Invalid(failure.message if failure else f"Network {network_id} has no subnet.")


async def remove_fixed_ip(rt: Runtime, ctx: RequestContext, server: Server, address: str) -> None:
    """Raises Invalid when the server does not have the address."""
    check_lock(ctx, server)
    api = networking(rt)
    for port in await interfaces.of_server(rt, server):
        left = [ip for ip in port["fixed_ips"] if ip["ip_address"] != address]
        if left != port["fixed_ips"]:
            await api.update("ports", port["id"], {"fixed_ips": left})
            await show(rt, server.uuid)
            return
    raise Invalid(f"Instance {server.uuid} does not have fixed IP {address}.")


async def add_security_group(rt: Runtime, ctx: RequestContext, server: Server, name: str) -> None:
    """On all ports of the server, by the group's id or name. Raises NotFound, Invalid, Conflict."""
    group, found = await _group_and_ports(rt, ctx, server, name)
    if any(not port.get("port_security_enabled", True) or not port["fixed_ips"] for port in found):
        raise Invalid(NO_GROUPS)
    wanted = {port["id"]: [*port["security_groups"], group["id"]] for port in found}
    await _set_groups(rt, server, {id: ids for id, ids in wanted.items() if len(set(ids)) == len(ids)})


async def remove_security_group(rt: Runtime, ctx: RequestContext, server: Server, name: str) -> None:
    """From all ports that have it. Raises NotFound when none has, Conflict."""
    group, found = await _group_and_ports(rt, ctx, server, name)
    having = [port for port in found if group["id"] in port["security_groups"]]
    if not having:
        raise NotFound(f"Security group {name} not associated with the instance {server.uuid}")
    wanted = {port["id"]: [id for id in port["security_groups"] if id != group["id"]] for port in having}
    await _set_groups(rt, server, wanted)


async def _group_and_ports(
    rt: Runtime, ctx: RequestContext, server: Server, name: str
) -> tuple[Document, list[Document]]:
    groups = await networking(rt).find("security-groups", {"project_id": ctx.project_id})
    try:
        group = find_group(groups, name)
    except Invalid:
        raise NotFound(f"Security group {name} is not found for project {ctx.project_id}") from None
    found = await interfaces.of_server(rt, server)
    if not found:
        raise NotFound(f"instance_id {server.uuid} could not be found as device id on any ports")
    return group, found


async def _set_groups(rt: Runtime, server: Server, wanted: dict[str, list[str]]) -> None:
    api = networking(rt)
    await asyncio.gather(*(api.update("ports", id, {"security_groups": groups}) for id, groups in wanted.items()))
    await show(rt, server.uuid)


async def associate(
    rt: Runtime, ctx: RequestContext, server: Server, address: str, fixed_address: str | None = None
) -> None:
    """Lead a floating IP of the caller's project to the server. Raises Invalid, NotFound, Forbidden."""
    api = networking(rt)
    nics = network_info.nics_of(server.network_info)
    if not nics:
        raise Invalid("Instance network is not ready yet")
    places = [(ip.address, nic.port_id) for nic in nics for subnet in nic.subnets for ip in subnet.ips]
    if not places:
        raise Invalid("No fixed IPs associated to instance")
    if fixed_address is not None:
        fitting = [place for place in places if place[0] == fixed_address]
        if not fitting:
            raise Invalid("Specified fixed address not assigned to instance")
    else:
        fitting = [place for place in places if ipaddress.ip_address(place[0]).version == 4]
        if not fitting:
            raise Invalid(
                f"Unable to associate floating IP {address} to any fixed IPs for instance {server.uuid}. "
                "Instance has no fixed IPv4 addresses to associate."
            )
    fixed, port_id = fitting[0]
    floating = await floating_ip(rt, ctx, address)
    if floating is None:
        raise NotFound("floating IP not found")
    before = await device_of(rt, floating)
    try:
        await api.update("floatingips", floating["id"], {"port_id": port_id, "fixed_ip_address": fixed})
    except (Forbidden, Unavailable):
        raise
    except KilonovaError as error:
        raise Invalid(
            f"Unable to associate floating IP {address} to fixed IP {fixed} for instance {server.uuid}. "
            f"Error: {error.message}"
        ) from None
    await show(rt, server.uuid)
    if before is not None and before != server.uuid:
        await _tell(rt, before)


async def disassociate(rt: Runtime, floating: Document, server_uuid: str) -> None:
    await networking(rt).update("floatingips", floating["id"], {"port_id": None})
    await show(rt, server_uuid)


async def floating_ip(rt: Runtime, ctx: RequestContext, address: str) -> Document | None:
    """By its address, of the caller's project or of any for administrators."""
    owner = {} if ctx.is_admin else {"project_id": ctx.project_id}
    found = await networking(rt).find("floatingips", {"floating_ip_address": address, **owner})
    return found[0] if found else None


async def device_of(rt: Runtime, floating: Document) -> str | None:
    """The server that a floating IP leads to."""
    if not floating.get("port_id"):
        return None
    details = floating.get("port_details")
    if details is not None:
        return str(details["device_id"]) or None
    found = await networking(rt).find("ports", {"id": [floating["port_id"]]})
    return str(found[0]["device_id"]) or None if found else None


async def show(rt: Runtime, server_uuid: str) -> None:
    """What the server's row tells is as it is now; should that not work out at once, it is soon."""
    with contextlib.suppress(KilonovaError):
        if await refresh(rt, server_uuid):
            return
    await _tell(rt, server_uuid)


async def _tell(rt: Runtime, server_uuid: str) -> None:
    await hint(rt.bus, "conductor", NetworkEvent(server_uuid=server_uuid, name="changed"))
