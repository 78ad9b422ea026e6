"""From Neutron's state to what every host's plane should have. Pure: the same documents give the same plans."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kilonova.network import limits, security
from kilonova.network.plan import (
    Advertised,
    Client,
    DhcpHost,
    DhcpPlan,
    DhcpSubnet,
    FloatingPlan,
    NetworkPlan,
    Plan,
    PortPlan,
    RouterPlan,
    RouterPort,
)
from kilonova.network.rest import Document
from kilonova.network.role import PlaneHost
from kilonova.network.upkeep import DHCP, ROUTER_OWNERS, Documents, dhcp_device_id, elsewhere

GATEWAY = "network:router_gateway"
ZONES = 65535
"""Connection tracking's zones; 0 is everybody else's."""


def _lists() -> dict[str, list[Document]]:
    return defaultdict(list)


@dataclass(slots=True)
class _Places:
    """Neutron's documents, sorted by who asks for them."""

    guests: dict[str, list[Document]] = field(default_factory=_lists)
    """By host."""
    routers: dict[str, dict[str, list[Document]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By host and router."""
    dhcp: dict[str, Document] = field(default_factory=dict)
    """By network."""
    by_network: dict[str, list[Document]] = field(default_factory=_lists)
    """Guests' and routers' ports."""
    floating: dict[str, list[Document]] = field(default_factory=_lists)
    """By router."""
    zones: dict[str, int] = field(default_factory=dict)
    """By network."""


def plans(documents: Documents, hosts: Mapping[str, PlaneHost]) -> Mapping[str, Plan]:
    """The plan of each of `hosts`. A host's `facts` is the address where tunnels reach it, or None."""
    places = _sort(documents)
    return {host: _plan(documents, places, host, hosts) for host in hosts}


def _sort(documents: Documents) -> _Places:
    places = _Places()
    also = elsewhere(documents)
    for port in sorted(documents["ports"].values(), key=lambda port: str(port["id"])):
        owner, host = port["device_owner"], port.get("binding:host_id") or ""
        if owner == DHCP and port["device_id"] == dhcp_device_id(port["network_id"]):
            places.dhcp.setdefault(port["network_id"], port)
        elif owner in ROUTER_OWNERS:
            places.routers[host][port["device_id"]].append(port)
            places.by_network[port["network_id"]].append(port)
        elif host and not owner.startswith("network:") and port.get("binding:vif_type") == "bridge":
            places.guests[host].append(port)
            places.by_network[port["network_id"]].append(port)
            for other in sorted(also.get(port["id"], ())):
                # What is sent to it goes where it is bound.
                places.guests[other].append(port)
    for floating in sorted(documents["floatingips"].values(), key=lambda each: str(each["id"])):
        if floating.get("router_id") and floating.get("port_id"):
            places.floating[floating["router_id"]].append(floating)
    taken: set[int] = set()
    for network_id, network in sorted(documents["networks"].items()):
        wanted = network.get("provider:segmentation_id") or int.from_bytes(network_id.encode()[:4])
        places.zones[network_id] = _free(1 + int(wanted) % ZONES, ZONES, taken)
    return places


def _free(wanted: int, most: int, taken: set[int]) -> int:
    """`wanted`, or the next number from 1 to `most` that nobody has taken; takes it."""
    while wanted in taken:
        wanted = 1 + wanted % most
    taken.add(wanted)
    return wanted


def _plan(documents: Documents, places: _Places, host: str, hosts: Mapping[str, PlaneHost]) -> Plan:
    guests = places.guests.get(host, [])
    routers = places.routers.get(host, {})
    present = {port["network_id"] for port in guests}
    present |= {port["network_id"] for ports in routers.values() for port in ports}
    present &= documents["networks"].keys()
    ports = _ports(documents, [port for port in guests if port["network_id"] in present])
    groups, sets = security.groups(documents, {group for port in ports for group in port.groups})
    served = sorted({port["network_id"] for port in guests} & present)
    return Plan(
        networks=tuple(_network(documents, places, each, host, hosts) for each in sorted(present)),
        ports=ports,
        groups=groups,
        sets=sets,
        dhcp=tuple(plan for each in served if (plan := _dhcp(documents, places, each, guests)) is not None),
        routers=tuple(
            _router(documents, places, documents["routers"][router_id], ports)
            for router_id, ports in sorted(routers.items())
            if router_id in documents["routers"]
        ),
    )


# -- networks and ports


def _network(
    documents: Documents, places: _Places, network_id: str, host: str, hosts: Mapping[str, PlaneHost]
) -> NetworkPlan:
    network = documents["networks"][network_id]
    kind = network.get("provider:network_type")
    elsewhere: list[tuple[str, str]] = []
    if kind == "vxlan":
        for port in places.by_network[network_id]:
            there = hosts.get(port["binding:host_id"] or "")
            if there is not None and there.host != host and there.facts:
                elsewhere.append((port["mac_address"], there.facts))
    dhcp = places.dhcp.get(network_id)
    return NetworkPlan(
        id=network_id,
        mtu=network["mtu"],
        zone=places.zones[network_id],
        vni=network.get("provider:segmentation_id") if kind == "vxlan" else None,
        physical=network.get("provider:physical_network") if kind == "flat" else None,
        peers=tuple(sorted({address for _, address in elsewhere})),
        forwarding=tuple(sorted(elsewhere)),
        local_macs=(dhcp["mac_address"],) if dhcp is not None else (),
    )


def _ports(documents: Documents, guests: Iterable[Document]) -> tuple[PortPlan, ...]:
    marks: set[int] = set()
    found = []
    for port in guests:
        network = documents["networks"][port["network_id"]]
        policy = port.get("qos_policy_id") or port.get("qos_network_policy_id") or network.get("qos_policy_id")
        to_guest, from_guest = limits.of(documents["policies"].get(policy or ""))
        found.append(
            PortPlan(
                id=port["id"],
                network_id=port["network_id"],
                mark=_free(1 + int(port["id"].replace("-", "")[:8], 16) % 0xFFFFFFFE, 0xFFFFFFFE, marks),
                up=bool(port["admin_state_up"] and network.get("admin_state_up", True)),
                secured=bool(port.get("port_security_enabled", True)),
                stateful=security.stateful(documents, port),
                addresses=security.own_addresses(port),
                groups=tuple(sorted(port.get("security_groups") or ())),
                to_guest=to_guest,
                from_guest=from_guest,
            )
        )
    return tuple(found)


# -- DHCP


def _dhcp(documents: Documents, places: _Places, network_id: str, guests: Sequence[Document]) -> DhcpPlan | None:
    port = places.dhcp.get(network_id)
    if port is None:
        return None
    network = documents["networks"][network_id]
    addresses = {each["subnet_id"]: each["ip_address"] for each in port["fixed_ips"]}
    subnets = tuple(
        _dhcp_subnet(subnet, addresses[subnet["id"]])
        for subnet in _subnets(documents, network_id)
        if subnet["enable_dhcp"] and subnet["id"] in addresses
    )
    if not subnets:
        return None
    served = [guest for guest in guests if guest["network_id"] == network_id]
    return DhcpPlan(
        network_id=network_id,
        port_id=port["id"],
        mac=port["mac_address"],
        mtu=network["mtu"],
        domain=(network.get("dns_domain") or "").rstrip("."),
        subnets=subnets,
        hosts=tuple(_dhcp_host(guest, {subnet.id for subnet in subnets}) for guest in served),
        clients=_clients(served),
    )


def _subnets(documents: Documents, network_id: str) -> list[Document]:
    found = (subnet for subnet in documents["subnets"].values() if subnet["network_id"] == network_id)
    return sorted(found, key=lambda subnet: str(subnet["id"]))


def _dhcp_subnet(subnet: Document, address: str) -> DhcpSubnet:
    return DhcpSubnet(
        id=subnet["id"],
        cidr=subnet["cidr"],
        version=subnet["ip_version"],
        address=address,
        gateway=subnet.get("gateway_ip"),
        dns=tuple(subnet.get("dns_nameservers") or ()),
        routes=tuple((route["destination"], route["nexthop"]) for route in subnet.get("host_routes") or ()),
        mode=_mode(subnet),
    )


def _mode(subnet: Document) -> str | None:
    """One that says nothing of addresses gives them by DHCP, unless a router advertises something."""
    if subnet["ip_version"] == 4:
        return None
    return subnet.get("ipv6_address_mode") or ("slaac" if subnet.get("ipv6_ra_mode") else "dhcpv6-stateful")


def _dhcp_host(port: Document, subnets: set[str]) -> DhcpHost:
    fixed = [(each["subnet_id"], each["ip_address"]) for each in port["fixed_ips"] if each["subnet_id"] in subnets]
    assigned = [each["hostname"] for each in port.get("dns_assignment") or () if each.get("hostname")]
    first = port["fixed_ips"][0]["ip_address"] if port["fixed_ips"] else ""
    return DhcpHost(
        port_id=port["id"],
        mac=port["mac_address"],
        name=assigned[0] if assigned else f"host-{first.replace('.', '-').replace(':', '-')}",
        addresses=tuple(fixed),
        options=tuple(
            (int(each.get("ip_version") or 4), each["opt_name"], each["opt_value"])
            for each in port.get("extra_dhcp_opts") or ()
            if each.get("opt_value") is not None
        ),
    )


def _clients(ports: Iterable[Document]) -> tuple[Client, ...]:
    found = {
        each["ip_address"]: Client(
            address=each["ip_address"], server_id=port["device_id"], project_id=port["project_id"]
        )
        for port in ports
        if port["device_owner"].startswith("compute:")
        for each in port["fixed_ips"]
    }
    return tuple(found[address] for address in sorted(found))


# -- routers


def _router(documents: Documents, places: _Places, router: Document, ports: Sequence[Document]) -> RouterPlan:
    known = [port for port in ports if port["network_id"] in documents["networks"]]
    gateways = [port for port in known if port["device_owner"] == GATEWAY]
    inside = [port for port in known if port["device_owner"] != GATEWAY]
    gateway = _router_port(documents, gateways[0]) if gateways else None
    info = router.get("external_gateway_info") or {}
    outside = [address for address in (gateway.addresses if gateway else ()) if _version(address) == 4]
    networks = {port["network_id"] for port in inside}
    return RouterPlan(
        id=router["id"],
        up=bool(router.get("admin_state_up", True)),
        ports=tuple(_router_port(documents, port) for port in inside),
        gateway=gateway,
        next_hops=_next_hops(documents, gateways[0]) if gateways else (),
        snat=outside[0].partition("/")[0] if outside and info.get("enable_snat", True) else None,
        floating=tuple(
            FloatingPlan(id=each["id"], address=each["floating_ip_address"], fixed=each["fixed_ip_address"])
            for each in places.floating.get(router["id"], ())
        ),
        routes=tuple(sorted((each["destination"], each["nexthop"]) for each in router.get("routes") or ())),
        advertised=tuple(each for port in inside for each in _advertised(documents, port)),
        clients=_clients(port for each in sorted(networks) for port in places.by_network[each]),
    )


def _router_port(documents: Documents, port: Document) -> RouterPort:
    addresses = []
    for each in port["fixed_ips"]:
        subnet = documents["subnets"].get(each["subnet_id"])
        if subnet is not None:
            addresses.append(f"{each['ip_address']}/{subnet['cidr'].rpartition('/')[2]}")
    return RouterPort(
        id=port["id"],
        network_id=port["network_id"],
        mac=port["mac_address"],
        mtu=documents["networks"][port["network_id"]]["mtu"],
        up=bool(port["admin_state_up"]),
        addresses=tuple(addresses),
    )


def _next_hops(documents: Documents, gateway: Document) -> tuple[str, ...]:
    subnets = [documents["subnets"].get(each["subnet_id"]) for each in gateway["fixed_ips"]]
    hops = {subnet["ip_version"]: subnet["gateway_ip"] for subnet in subnets if subnet and subnet.get("gateway_ip")}
    return tuple(hops[version] for version in sorted(hops))


def _advertised(documents: Documents, port: Document) -> Iterable[Advertised]:
    for each in port["fixed_ips"]:
        subnet = documents["subnets"].get(each["subnet_id"])
        if subnet is not None and subnet["ip_version"] == 6 and subnet.get("ipv6_ra_mode"):
            yield Advertised(
                port_id=port["id"],
                prefix=subnet["cidr"],
                mode=subnet["ipv6_ra_mode"],
                dns=tuple(subnet.get("dns_nameservers") or ()),
            )


def _version(address: str) -> int:
    return ipaddress.ip_interface(address).version
