"""network_data.json and the devices of meta_data.json, made of what is cached of a server's ports. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from kilonova.nic import Nic, Subnet

EXPOSED = frozenset(
    {"bridge", "ovs", "dvs", "hw_veb", "hyperv", "macvtap", "other", "tap", "vhostuser", "vif", "vhostvdpa", "midonet"}
)
"""VIF types that guests are told; of others they learn that there is a link."""

Json = dict[str, object]


def network_data(nics: Sequence[Nic]) -> Json:
    """Links, networks and services as guests' tools read them: the first subnet of each IP version of each port.

    Empty for a server without ports.
    """
    if not nics:
        return {}
    networks: list[Json] = []
    services: list[Json] = []
    for nic in nics:
        for subnet in _first_of_each_version(nic):
            networks.append(_network(nic, subnet, len(networks)))
            services += [service for service in _services(subnet) if service not in services]
    return {"links": [_link(nic) for nic in nics], "networks": networks, "services": services}


def devices(nics: Sequence[Nic]) -> tuple[Json, ...]:
    """The NICs that carry a tag, which the guest recognises by their MACs."""
    known: Json = {"type": "nic", "bus": "none", "address": "none"}
    return tuple(known | {"mac": nic.mac, "tags": [nic.tag], "vf_trusted": False} for nic in nics if nic.tag)


def _first_of_each_version(nic: Nic) -> list[Subnet]:
    found = {subnet.version: subnet for subnet in reversed(nic.subnets)}
    return [found[version] for version in (4, 6) if version in found]


def _link(nic: Nic) -> Json:
    return {
        "id": nic.tap,
        "vif_id": nic.port_id,
        "type": nic.vif_type if nic.vif_type in EXPOSED else "phy",
        # A DHCP server tells it itself.
        "mtu": None if any(subnet.dhcp for subnet in nic.subnets) else nic.mtu or None,
        "ethernet_mac_address": nic.mac,
    }


def _network(nic: Nic, subnet: Subnet, number: int) -> Json:
    mode = subnet.ipv6_address_mode
    network: Json = {"id": f"network{number}", "link": nic.tap, "network_id": nic.network_id}
    if subnet.dhcp and mode is None:
        return network | {"type": f"ipv{subnet.version}_dhcp"}
    cidr = ipaddress.ip_network(subnet.cidr)
    routes = [(route.destination, route.gateway) for route in subnet.routes]
    if subnet.gateway:
        routes.insert(0, ("::/0" if subnet.version == 6 else "0.0.0.0/0", subnet.gateway))
    return network | {
        "type": f"ipv{subnet.version}" + (f"_{mode}" if mode else ""),
        "ip_address": subnet.ips[0].address,
        "netmask": str(cidr.netmask),
        "routes": [_route(destination, gateway) for destination, gateway in routes],
        "services": _services(subnet),
    }


def _route(destination: str, gateway: str) -> Json:
    network = ipaddress.ip_network(destination)
    return {"network": str(network.network_address), "netmask": str(network.netmask), "gateway": gateway}


def _services(subnet: Subnet) -> list[Json]:
    return [{"type": "dns", "address": address} for address in subnet.dns]
