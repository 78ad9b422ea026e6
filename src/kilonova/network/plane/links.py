"""Bridges, tunnels and taps of the host's namespace: from what is there to the commands that are missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilonova.network.plan import NetworkPlan, Plan
from kilonova.network.plane import names

Link = Mapping[str, Any]
"""As `ip -j -d link show` has it."""

EVERYBODY = "00:00:00:00:00:00"
"""The forwarding entry of what goes to all other hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The host as the plane is told of it. `uplinks`: devices by the flat networks that they lead to; `shared`: others
    have devices in the namespace too, as in a machine's own.
    """

    tunnel_ip: str | None = None
    uplinks: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False


@dataclass(slots=True)
class Work:
    """Commands of `ip`, in order; `plugged`: guests' ports whose taps are there."""

    commands: list[str] = field(default_factory=list)
    plugged: set[str] = field(default_factory=set)


def work(plan: Plan, links: Sequence[Link], site: Site) -> Work:
    """What brings the host to the plan. Taps of guests are their hypervisor's to make; ours to put in their bridges."""
    known = {link["ifname"]: link for link in links}
    done = Work()
    for network in plan.networks:
        _bridge(done, network, known)
        _tunnel(done, network, known, site)
        _uplink(done, network, known, site)
    for port in plan.ports:
        if names.tap(port.id) in known:
            _member(done, names.tap(port.id), names.bridge(port.network_id), known)
            done.plugged.add(port.id)
    services = service_taps(plan)
    for tap, network_id in services.items():
        if tap in known:
            _member(done, tap, names.bridge(network_id), known)
    _remove(done, plan, known, services, site)
    return done


def devices(plan: Plan, known: Iterable[str], site: Site) -> list[str]:
    """What is ours to hold of the devices `known`: they carry packets, and are no hosts themselves."""
    ours = {names.bridge(network.id) for network in plan.networks} | set(service_taps(plan))
    ours |= {names.tap(port.id) for port in plan.ports}
    ours |= {names.tunnel(network.vni) for network in plan.networks if network.vni is not None and site.tunnel_ip}
    return sorted(ours.intersection(known))


def service_taps(plan: Plan) -> dict[str, str]:
    """The bridges' ends of links to namespaces: names to networks."""
    found = {names.tap(each.port_id): each.network_id for each in plan.dhcp}
    for router in plan.routers:
        for port in [*router.ports, *([router.gateway] if router.gateway else [])]:
            found[names.tap(port.id)] = port.network_id
    return found


def _bridge(done: Work, network: NetworkPlan, known: Mapping[str, Link]) -> None:
    name = names.bridge(network.id)
    link = known.get(name)
    if link is None:
        done.commands.append(f"link add {name} type bridge stp_state 0 forward_delay 0")
    if link is None or link["mtu"] != network.mtu or not _up(link):
        done.commands.append(f"link set {name} mtu {network.mtu} up")


def _tunnel(done: Work, network: NetworkPlan, known: Mapping[str, Link], site: Site) -> None:
    if network.vni is None or site.tunnel_ip is None:
        return
    name = names.tunnel(network.vni)
    link = known.get(name)
    if link is not None:
        facts = link.get("linkinfo", {}).get("info_data", {})
        if facts.get("id") != network.vni or facts.get("local") != site.tunnel_ip:
            done.commands.append(f"link del {name}")
            link = None
    if link is None:
        done.commands.append(
            f"link add {name} mtu {network.mtu} type vxlan id {network.vni} local {site.tunnel_ip} dstport 4789"
            " nolearning"
        )
    if link is None or link.get("ifalias") != names.MARK:
        done.commands.append(f"link set {name} alias {names.MARK}")
    if link is None or link.get("master") != names.bridge(network.id) or not _up(link):
        done.commands.append(f"link set {name} master {names.bridge(network.id)} up")


def _uplink(done: Work, network: NetworkPlan, known: Mapping[str, Link], site: Site) -> None:
    device = site.uplinks.get(network.physical or "", "")
    if device in known:
        _member(done, device, names.bridge(network.id), known)


def _member(done: Work, device: str, bridge: str, known: Mapping[str, Link]) -> None:
    link = known[device]
    if link.get("master") != bridge or not _up(link):
        done.commands.append(f"link set {device} master {bridge} up")


def _remove(done: Work, plan: Plan, known: Mapping[str, Link], services: Iterable[str], site: Site) -> None:
    """Bridges without anybody else's devices, tunnels and links that nobody needs any more."""
    bridges = {names.bridge(network.id) for network in plan.networks}
    tunnels = {names.tunnel(network.vni) for network in plan.networks if network.vni is not None and site.tunnel_ip}
    gone = set()
    for name, link in known.items():
        kind = link.get("linkinfo", {}).get("info_kind")
        stray_tap = kind == "veth" and link.get("ifalias") == names.MARK and name not in services
        stray_tunnel = kind == "vxlan" and link.get("ifalias") == names.MARK and name not in tunnels
        if stray_tap or stray_tunnel:
            gone.add(name)
            done.commands.append(f"link del {name}")
    for name, link in known.items():
        if (
            link.get("linkinfo", {}).get("info_kind") != "bridge"
            or name in bridges
            or not name.startswith(names.BRIDGE)
        ):
            continue
        members = {each for each, other in known.items() if other.get("master") == name} - gone
        uplinks = members & set(site.uplinks.values())
        if members == uplinks:
            done.commands += [f"link set {device} nomaster" for device in sorted(uplinks)]
            done.commands.append(f"link del {name}")


def _up(link: Link) -> bool:
    return "UP" in link.get("flags", ())


def forwarding_work(plan: Plan, entries: Sequence[Mapping[str, Any]], site: Site) -> list[str]:
    """Commands of `bridge` that make tunnels know who is where. `entries` as `bridge -j fdb show` has them."""
    wanted: set[tuple[str, str, str]] = set()
    devices = set()
    for network in plan.networks:
        if network.vni is None or site.tunnel_ip is None:
            continue
        device = names.tunnel(network.vni)
        devices.add(device)
        wanted |= {(device, EVERYBODY, peer) for peer in network.peers}
        wanted |= {(device, mac, address) for mac, address in network.forwarding}
    found = {
        (each["ifname"], each["mac"], each["dst"]) for each in entries if each.get("dst") and each["ifname"] in devices
    }
    commands = [f"fdb del {mac} dev {device} dst {address}" for device, mac, address in sorted(found - wanted)]
    commands += [f"fdb append {mac} dev {device} dst {address}" for device, mac, address in sorted(wanted - found)]
    return commands
