"""What the role `network` keeps in Neutron on its own behalf: a DHCP port per network, router ports bound to a host.

Pure: from documents to the calls that are missing. Deterministic `device_id`s make a doubled port findable: it goes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from kilonova.network.hints import BINDINGS
from kilonova.network.rest import Document

DHCP = "network:dhcp"
ROUTER_OWNERS = frozenset({"network:router_interface", "network:router_gateway"})

MIGRATING_TO = "migrating_to"
"""In a port's binding profile: the host that a live migration takes its guest to, as Compute names it."""

Documents = Mapping[str, Mapping[str, Document]]


@dataclass(frozen=True, slots=True)
class MakeDhcpPort:
    network_id: str
    project_id: str
    host: str
    subnets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MoveDhcpPort:
    """Give the port an address on exactly these subnets."""

    port_id: str
    subnets: tuple[str, ...]
    fixed_ips: tuple[tuple[str, str | None], ...]
    """(subnet, address to keep or None for any)."""


@dataclass(frozen=True, slots=True)
class RemovePort:
    port_id: str


@dataclass(frozen=True, slots=True)
class BindPort:
    port_id: str
    host: str


Call = MakeDhcpPort | MoveDhcpPort | RemovePort | BindPort


def elsewhere(documents: Documents) -> dict[str, set[str]]:
    """By port: the hosts on which it is to be wired as well as where it is bound. A live migration's destination has
    an inactive binding, or stands in the profile; its source keeps an inactive binding until it is deleted.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for binding in documents[BINDINGS].values():
        found[binding["port_id"]].add(binding["host"])
    for port in documents["ports"].values():
        if target := (port.get("binding:profile") or {}).get(MIGRATING_TO):
            found[port["id"]].add(target)
        if port["id"] in found:
            found[port["id"]].discard(port.get("binding:host_id") or "")
    return found


def dhcp_device_id(network_id: str) -> str:
    """The same for every instance of the role."""
    return f"dhcp-kilonova-{network_id}"


def missing(documents: Documents, hosts: Collection[str]) -> list[Call]:
    """The calls that bring Neutron to what should be; `hosts`: those whose planes live."""
    return [*_dhcp(documents, hosts), *_routers(documents, hosts)]


def _dhcp(documents: Documents, hosts: Collection[str]) -> Iterable[Call]:
    subnets = defaultdict(list)
    for subnet in documents["subnets"].values():
        if subnet["enable_dhcp"]:
            subnets[subnet["network_id"]].append(subnet["id"])
    ours = defaultdict(list)
    used = defaultdict(set)
    for port in documents["ports"].values():
        if port["device_owner"] == DHCP and port["device_id"] == dhcp_device_id(port["network_id"]):
            ours[port["network_id"]].append(port)
        elif port.get("binding:host_id") and not port["device_owner"].startswith("network:"):
            used[port["network_id"]].add(port["binding:host_id"])
    for network_id, network in documents["networks"].items():
        wanted = tuple(sorted(subnets[network_id]))
        ports = sorted(ours[network_id], key=lambda port: str(port["id"]))
        for extra in ports[1:] if wanted else ports:
            yield RemovePort(extra["id"])
        if not wanted:
            continue
        if ports:
            has = {each["subnet_id"]: each["ip_address"] for each in ports[0]["fixed_ips"]}
            if set(has) != set(wanted):
                keep = tuple((subnet_id, has.get(subnet_id)) for subnet_id in wanted)
                yield MoveDhcpPort(ports[0]["id"], wanted, keep)
            # It is on every host that has servers there; Neutron knows one of them.
            serving = used[network_id] & set(hosts)
            if serving and ports[0].get("binding:host_id") not in serving:
                yield BindPort(ports[0]["id"], min(serving))
        elif serving := used[network_id] & set(hosts):
            # Not before a server is there: an address is a scarce thing in somebody's small pool.
            yield MakeDhcpPort(network_id, network["project_id"], min(serving), wanted)


def _routers(documents: Documents, hosts: Collection[str]) -> Iterable[Call]:
    by_router = defaultdict(list)
    for port in documents["ports"].values():
        if port["device_owner"] in ROUTER_OWNERS:
            by_router[port["device_id"]].append(port)
    for router_id, ports in by_router.items():
        host = router_host(router_id, ports, hosts)
        if host is None:
            continue
        for port in ports:
            if port.get("binding:host_id") != host:
                yield BindPort(port["id"], host)


def router_host(router_id: str, ports: Iterable[Document], hosts: Collection[str]) -> str | None:
    """Where a router is: where most of its ports are, as long as that host lives; else the host that it draws.

    None without a living host. Drawn by hash, so that routers spread and another host's coming or going moves few.
    """
    bound: dict[str, int] = defaultdict(int)
    for port in ports:
        if port.get("binding:host_id") in hosts:
            bound[port["binding:host_id"]] += 1
    if bound:
        return max(sorted(bound), key=lambda host: bound[host])
    return max(sorted(hosts), key=lambda host: _lot(router_id, host), default=None)


def _lot(router_id: str, host: str) -> bytes:
    return hashlib.sha256(f"{router_id}/{host}".encode()).digest()
