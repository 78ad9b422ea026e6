"""Networks, floating IPs and security groups as Compute's old interfaces show them: Networking's, by project."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Set
from typing import Any
from urllib.parse import unquote

from kilonova.compute import addresses
from kilonova.compute.attach import networking
from kilonova.compute.networks import visible
from kilonova.context import RequestContext
from kilonova.errors import Conflict, Forbidden, Invalid, NotFound, OverQuota
from kilonova.networking import Document, NetworkConflict
from kilonova.runtime import Runtime

DEFAULT_POOL = "nova"
"""The external network that floating IPs come from when none is named."""
_PORTS = range(1, 65536)
_ICMP = range(-1, 256)


# -- networks


async def networks(rt: Runtime, ctx: RequestContext) -> list[Document]:
    """Those that the caller may see: the project's own, shared and external ones; all for administrators."""
    api = networking(rt)
    if ctx.is_admin:
        return await api.find("networks")
    policies = await api.find(
        "rbac-policies",
        {"object_type": "network", "action": "access_as_shared", "target_tenant": ctx.project_id},
    )
    found = await asyncio.gather(
        api.find("networks", {"project_id": ctx.project_id}),
        api.find("networks", {"shared": True}),
        api.find("networks", {"router:external": True}),
        api.find("networks", {"id": sorted({policy["object_id"] for policy in policies})}),
    )
    return list({network["id"]: network for part in found for network in part}.values())


async def network(rt: Runtime, ctx: RequestContext, network_id: str) -> Document:
    """Raises NotFound."""
    api = networking(rt)
    if ctx.is_admin:
        try:
            return await api.show("networks", network_id)
        except NotFound:
            raise NotFound("Network not found") from None
    try:
        return (await visible(api, ctx.project_id, [network_id]))[network_id]
    except Invalid:
        raise NotFound("Network not found") from None


async def pools(rt: Runtime) -> list[Document]:
    return await networking(rt).find("networks", {"router:external": True})


# -- floating IPs


async def floating_ips(rt: Runtime, ctx: RequestContext) -> list[Document]:
    """Those of the caller's project, each with the network's `pool` and the server as `instance_id`."""
    found = await networking(rt).find("floatingips", {"project_id": ctx.project_id})
    return await _described(rt, found)


async def floating_ip(rt: Runtime, ctx: RequestContext, id: str) -> Document:
    """Raises NotFound."""
    return (await _described(rt, [await _floating_ip(rt, ctx, id)]))[0]


async def allocate(rt: Runtime, ctx: RequestContext, pool: str | None) -> Document:
    """A floating IP of the pool, named by its id or name. Raises NotFound, OverQuota, Invalid."""
    api = networking(rt)
    name = pool or DEFAULT_POOL
    fitting = [network for network in await pools(rt) if name in (network["id"], network["name"])]
    if not fitting:
        raise NotFound("Floating IP pool not found.")
    if len(fitting) > 1:
        raise Invalid(f"Multiple floating IP pools matches found for name '{name}'")
    asked = {"floating_network_id": fitting[0]["id"], "project_id": ctx.project_id, "tenant_id": ctx.project_id}
    try:
        (made,) = await api.create("floatingips", [asked])
    except OverQuota:
        raise OverQuota(f"IP allocation over quota in pool {pool}." if pool else "IP allocation over quota.") from None
    except NetworkConflict:
        raise NotFound(f"No more floating IPs in pool {pool}." if pool else "No more floating IPs available.") from None
    return (await _described(rt, [made]))[0]


async def release(rt: Runtime, ctx: RequestContext, id: str) -> None:
    """Raises NotFound."""
    floating = await _floating_ip(rt, ctx, id)
    device = await addresses.device_of(rt, floating)
    await networking(rt).delete("floatingips", id)
    if device is not None:
        await addresses.show(rt, device)


async def _floating_ip(rt: Runtime, ctx: RequestContext, id: str) -> Document:
    try:
        found = await networking(rt).show("floatingips", id)
    except (NotFound, Invalid):
        found = {}
    if not found or (found["project_id"] != ctx.project_id and not ctx.is_admin):
        raise NotFound(f"Floating IP not found for ID {id}")
    return found


async def _described(rt: Runtime, found: list[Document]) -> list[Document]:
    api = networking(rt)
    networks, ports = await asyncio.gather(
        api.find("networks", {"id": sorted({ip["floating_network_id"] for ip in found})}),
        api.find("ports", {"id": sorted({ip["port_id"] for ip in found if ip.get("port_id")})}),
    )
    names = {network["id"]: network["name"] or network["id"] for network in networks}
    devices = {port["id"]: port["device_id"] or None for port in ports}
    return [
        ip
        | {
            "pool": names.get(ip["floating_network_id"], ip["floating_network_id"]),
            "instance_id": devices.get(ip.get("port_id")),
        }
        for ip in found
    ]


# -- security groups


async def groups(rt: Runtime, ctx: RequestContext, *, of_all: bool = False) -> list[Document]:
    """Those of the caller's project; `of_all`: of every project."""
    return await networking(rt).find("security-groups", {} if of_all else {"project_id": ctx.project_id})


async def group_names(rt: Runtime, shown: list[Document]) -> dict[str, Document]:
    """By id, these groups and those that their rules name as sources."""
    known = {group["id"]: group for group in shown}
    wanted = {rule.get("remote_group_id") for group in shown for rule in group.get("security_group_rules", ())}
    return known | await groups_by_id(rt, {id for id in wanted if id} - known.keys())


async def groups_by_id(rt: Runtime, ids: Set[str]) -> dict[str, Document]:
    """Those that there are."""
    found = await networking(rt).find("security-groups", {"id": sorted(ids)}) if ids else []
    return {group["id"]: group for group in found}


async def group(rt: Runtime, ctx: RequestContext, id: str) -> Document:
    """Raises NotFound."""
    return await _own(rt, ctx, "security-groups", id, f"Security group {id} not found.")


async def create_group(rt: Runtime, ctx: RequestContext, name: str, description: str) -> Document:
    """Raises Invalid, Forbidden."""
    asked = {"name": name, "description": description, "project_id": ctx.project_id, "tenant_id": ctx.project_id}
    try:
        (made,) = await networking(rt).create("security-groups", [asked])
    except Conflict as error:
        raise Forbidden(error.message) from None
    return made


async def update_group(rt: Runtime, ctx: RequestContext, id: str, name: str, description: str) -> Document:
    """Raises NotFound, Invalid."""
    await group(rt, ctx, id)
    try:
        return await networking(rt).update("security-groups", id, {"name": name, "description": description})
    except Conflict as error:
        raise Invalid(error.message) from None


async def delete_group(rt: Runtime, ctx: RequestContext, id: str) -> None:
    """Raises NotFound, Invalid when it is in use."""
    await group(rt, ctx, id)
    try:
        await networking(rt).delete("security-groups", id)
    except Conflict as error:
        raise Invalid(error.message) from None


async def create_rule(rt: Runtime, ctx: RequestContext, asked: dict[str, Any]) -> Document:
    """Raises NotFound, Invalid, Forbidden."""
    parent = await group(rt, ctx, asked["parent_group_id"])
    if asked.get("group_id") is not None:
        await group(rt, ctx, asked["group_id"])
    rule = rule_of(asked)
    if any(all(known.get(name) == value for name, value in rule.items()) for known in parent["security_group_rules"]):
        raise Invalid(f"This rule already exists in group {parent['id']}")
    try:
        (made,) = await networking(rt).create("security-group-rules", [rule | {"project_id": ctx.project_id}])
    except Conflict as error:
        raise Forbidden(error.message) from None
    return made


async def delete_rule(rt: Runtime, ctx: RequestContext, id: str) -> None:
    """Raises NotFound."""
    await _own(rt, ctx, "security-group-rules", id, f"Security group rule {id} not found.")
    await networking(rt).delete("security-group-rules", id)


async def _own(rt: Runtime, ctx: RequestContext, collection: str, id: str, missing: str) -> Document:
    try:
        found = await networking(rt).show(collection, id)
    except NotFound:
        raise NotFound(missing) from None
    if found["project_id"] != ctx.project_id and not ctx.is_admin:
        raise NotFound(missing)
    return found


def rule_of(asked: dict[str, Any]) -> Document:
    """Networking's rule for one asked for with `parent_group_id`, `ip_protocol`, `from_port`, `to_port`, and `cidr` or
    `group_id`. Raises Invalid.
    """
    source, protocol = asked.get("group_id"), asked.get("ip_protocol")
    lowest, highest = asked.get("from_port"), asked.get("to_port")
    cidr = None if source is not None else _cidr(asked.get("cidr"))
    if source is not None and lowest is None and highest is None:
        # Everything of the protocol; without a source the ports have to be said.
        lowest, highest = {"ICMP": (-1, -1), "TCP": (1, 65535), "UDP": (1, 65535)}.get(
            str(protocol or "").upper(), (None, None)
        )
    if protocol and lowest is not None and highest is not None:
        lowest, highest = _range(str(protocol), lowest, highest)
    elif source is None:
        raise Invalid("Not enough parameters to build a valid rule.")
    else:
        protocol = lowest = highest = None
    if cidr is not None and cidr.network.prefixlen == 0 and int(cidr):
        raise Invalid(f"Bad prefix for network in cidr {cidr}")
    return {
        "security_group_id": asked["parent_group_id"],
        "direction": "ingress",
        "ethertype": "IPv6" if cidr is not None and cidr.version == 6 else "IPv4",
        "protocol": None if protocol is None else str(protocol),
        "port_range_min": None if lowest == -1 else lowest,
        "port_range_max": None if highest == -1 else highest,
        "remote_ip_prefix": None if cidr is None else str(asked.get("cidr") or "0.0.0.0/0"),
        "remote_group_id": source,
    }


def _cidr(asked: Any) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    text = unquote(str(asked)) if asked else "0.0.0.0/0"
    try:
        if "/" not in text:
            raise ValueError
        return ipaddress.ip_interface(text)
    except ValueError:
        raise Invalid(f"Invalid cidr {asked}.") from None


def _range(protocol: str, lowest: Any, highest: Any) -> tuple[int, int]:
    kind = protocol.upper()
    try:
        low, high = int(lowest), int(highest)
    except (TypeError, ValueError):
        raise Invalid(
            "Invalid input received: "
            + (
                "Type and Code must be integers for ICMP protocol type"
                if kind == "ICMP"
                else "To and From ports must be integers"
            )
        ) from None
    told = f"Invalid port range {low}:{high}."
    if kind not in ("TCP", "UDP", "ICMP"):
        raise Invalid(f"Invalid IP protocol {protocol}.")
    if kind == "ICMP":
        if low not in _ICMP or high not in _ICMP:
            raise Invalid(f"{told} For ICMP, the type:code must be valid")
    elif low > high:
        raise Invalid(f"{told} Former value cannot be greater than the later")
    elif low not in _PORTS or high not in _PORTS:
        raise Invalid(f"{told} Valid {kind} ports should be between 1-65535")
    return low, high
