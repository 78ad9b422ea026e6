"""What networks a new server or interface gets: looked up and judged before anything changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kilonova.context import RequestContext
from kilonova.errors import Conflict, Forbidden, Invalid, NotFound, OverQuota
from kilonova.networking import Document, Networking
from kilonova.runtime import Runtime

DEFAULT_GROUP = "default"

PortRequest = dict[str, Any]
"""`network_id`, `port_id`, `fixed_ip`, `tag`; `port_id` names a user's own port, else one is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`ports`: in the guest's order; `auto`: one port, on a network that Networking has to make first."""

    ports: tuple[PortRequest, ...] = ()
    auto: bool = False
    group_ids: tuple[str, ...] = ()
    """Empty: Networking's default group."""
    group_names: tuple[str, ...] = (DEFAULT_GROUP,)
    max_count: int | None = None
    """As many servers as the quota of ports allows; None: any number."""

    @property
    def has_ports(self) -> bool:
        return self.auto or bool(self.ports)


async def plan(
    rt: Runtime,
    ctx: RequestContext,
    networks: str | Sequence[dict[str, Any]] | None,
    groups: Sequence[str],
    *,
    min_count: int = 1,
    max_count: int = 1,
    external_allowed: bool = False,
) -> Plan:
    """What a request's networks (None: not said; 'auto', 'none' or a list) and security groups come to.

    Raises Invalid, Conflict (ambiguous, in use), Forbidden, OverQuota, Unavailable.
    """
    api = rt.network
    if api is None:
        return Plan(group_names=tuple(groups) or (DEFAULT_GROUP,))
    if networks == "none":
        ids, _ = await _groups(api, ctx.project_id, groups)
        return Plan(group_ids=ids, group_names=tuple(groups) or (DEFAULT_GROUP,))
    (ids, names), (ports, auto) = await asyncio.gather(
        _groups(api, ctx.project_id, groups), _ports(api, ctx, networks, max_count, external_allowed, bool(groups))
    )
    needed = 1 if auto else sum(port["port_id"] is None for port in ports)
    fits = await _fits(api, ctx.project_id, needed, min_count, max_count) if needed else None
    return Plan(ports=tuple(ports), auto=auto, group_ids=ids, group_names=names, max_count=fits)


async def _ports(
    api: Networking,
    ctx: RequestContext,
    networks: str | Sequence[dict[str, Any]] | None,
    max_count: int,
    external_allowed: bool,
    with_groups: bool,
) -> tuple[list[PortRequest], bool]:
    if isinstance(networks, str) or not networks:
        found = await available(api, ctx.project_id, ready=networks == "auto")
        if len(found) > 1:
            raise Conflict(
                "More than one possible network found. Specify network ID(s) to select which one(s) to connect to."
            )
        if not found:
            return [], networks == "auto"
        check_network(found[0], external_allowed, with_groups)
        return [_request(found[0]["id"])], False
    _check_count(networks, max_count)
    ports, known = await asyncio.gather(
        asyncio.gather(*(usable_port(api, ctx, asked["port"]) for asked in networks if asked.get("port"))),
        visible(api, ctx.project_id, [asked["uuid"] for asked in networks if not asked.get("port")]),
    )
    by_id = {port["id"]: port for port in ports}
    made = []
    for asked in networks:
        if asked.get("port"):
            made.append(_request(by_id[asked["port"]]["network_id"], port_id=asked["port"], tag=asked.get("tag")))
            continue
        check_network(known[asked["uuid"]], external_allowed, with_groups)
        made.append(_request(asked["uuid"], fixed_ip=asked.get("fixed_ip"), tag=asked.get("tag")))
    await asyncio.gather(*(_check_address(api, request) for request in made if request["fixed_ip"]))
    return made, False


def _request(
    network_id: str, *, port_id: str | None = None, fixed_ip: str | None = None, tag: str | None = None
) -> PortRequest:
    return {"network_id": network_id, "port_id": port_id, "fixed_ip": fixed_ip, "tag": tag}


def _check_count(networks: Sequence[dict[str, Any]], max_count: int) -> None:
    if max_count == 1:
        return
    if any(asked.get("fixed_ip") for asked in networks):
        raise Invalid("Failed to launch instances: max_count cannot be greater than 1 if an fixed_ip is specified.")
    if any(asked.get("port") for asked in networks):
        raise Invalid(
            "Failed to launch instances: Unable to launch multiple instances with a single configured port ID. "
            "Please launch your instance one by one with different ports."
        )


async def usable_port(api: Networking, ctx: RequestContext, port_id: str) -> Document:
    """A user's own port that nobody uses. Raises Invalid, Conflict."""
    try:
        port = await api.show("ports", port_id)
    except NotFound:
        raise Invalid(f"Port id {port_id} could not be found.") from None
    check_port(port, ctx.project_id, ctx.is_admin)
    return port


def check_port(port: Document, project_id: str, is_admin: bool) -> None:
    """Raises Invalid, Conflict unless the project's servers may take this port."""
    port_id = port["id"]
    if port["project_id"] != project_id and not is_admin:
        raise Invalid(f"Port {port_id} not usable: it belongs to another project.")
    if port.get("device_id"):
        raise Conflict(f"Port {port_id} is still in use.")
    if port.get("ip_allocation") != "deferred" and not port.get("fixed_ips"):
        raise Invalid(f"Port {port_id} requires a FixedIP in order to be used.")
    if port.get("binding:vif_type") == "binding_failed":
        raise Invalid(f"Binding failed for port {port_id}, please check neutron logs for more information.")
    if port.get("binding:vnic_type", "normal") != "normal":
        raise Invalid(
            f"Port {port_id} has vnic_type {port['binding:vnic_type']}; hosts of this cloud can only plug 'normal'."
        )


async def visible(api: Networking, project_id: str, ids: Sequence[str]) -> dict[str, Document]:
    """These networks as far as the project may use them. Raises Invalid naming those that are missing."""
    wanted = sorted(set(ids))
    found = {net["id"]: net for net in await api.find("networks", {"id": wanted})} if wanted else {}
    for id in wanted:
        if id in found and not _belongs(found[id], project_id) and not await _granted(api, id, project_id):
            del found[id]
    missing = [id for id in wanted if id not in found]
    if missing:
        raise Invalid(f"Network {', '.join(missing)} could not be found.")
    return found


def _belongs(network: Document, project_id: str) -> bool:
    return bool(network.get("project_id") == project_id or network.get("shared") or network.get("router:external"))


async def _granted(api: Networking, network_id: str, project_id: str) -> bool:
    """Shared with this project alone."""
    policies = await api.find("rbac-policies", {"object_type": "network", "object_id": network_id})
    return any(p["action"] == "access_as_shared" and p["target_tenant"] in (project_id, "*") for p in policies)


async def available(api: Networking, project_id: str, *, ready: bool) -> list[Document]:
    """The networks that the project owns, and those shared with all."""
    own, shared = await asyncio.gather(
        api.find("networks", {"project_id": project_id, "shared": False}), api.find("networks", {"shared": True})
    )
    known = {network["id"]: network for network in (*own, *shared)}
    return [network for network in known.values() if network.get("admin_state_up") or not ready]


def check_network(network: Document, external_allowed: bool, with_groups: bool) -> None:
    """Raises Invalid, Forbidden unless servers may have ports on it."""
    if not network.get("subnets"):
        raise Invalid(f"Network {network['id']} requires a subnet in order to boot instances on.")
    if network.get("router:external") and not network.get("shared") and not external_allowed:
        raise Forbidden(f"It is not allowed to create an interface on external network {network['id']}")
    if with_groups and network.get("port_security_enabled") is False:
        raise Invalid("Network requires port_security_enabled and subnet associated in order to apply security groups.")


async def _check_address(api: Networking, request: PortRequest) -> None:
    used = await api.find(
        "ports", {"network_id": request["network_id"], "fixed_ips": f"ip_address={request['fixed_ip']}"}
    )
    for port in used:
        if any(ip["ip_address"] == request["fixed_ip"] for ip in port["fixed_ips"]):
            raise Invalid(
                f"Fixed IP address {request['fixed_ip']} is already in use on instance {port.get('device_id')}."
            )


async def _groups(api: Networking, project_id: str, groups: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and names of security groups asked for by either. Raises Invalid, Conflict."""
    if not groups or list(groups) == [DEFAULT_GROUP]:
        return (), (DEFAULT_GROUP,)
    found = await api.find("security-groups", {"project_id": project_id})
    picked = [find_group(found, asked) for asked in groups]
    return tuple(group["id"] for group in picked), tuple(group["name"] for group in picked)


def find_group(found: Sequence[Document], asked: str) -> Document:
    """By id or by name. Raises Invalid when there is none, Conflict when there are several."""
    by_id = [group for group in found if group["id"] == asked]
    by_name = by_id or [group for group in found if group["name"] == asked]
    if not by_name:
        raise Invalid(f"Security group {asked} not found.")
    if len(by_name) > 1:
        raise Conflict(f"Security group name '{asked}' is not unique in the project; use the group's ID.")
    return by_name[0]


async def _fits(api: Networking, project_id: str, needed: int, min_count: int, max_count: int) -> int | None:
    room = await room_for_ports(api, project_id, needed * min_count)
    return None if room is None else min(room // needed, max_count)


async def room_for_ports(api: Networking, project_id: str, needed: int) -> int | None:
    """How many more ports the project may have; None: any number. Raises OverQuota for fewer than `needed`."""
    port = (await api.quota(project_id)).get("port", {"limit": -1, "used": 0})
    if port["limit"] < 0:
        return None
    room = max(port["limit"] - port["used"], 0)
    if room < needed:
        raise OverQuota("Maximum number of ports exceeded")
    return room
