"""Documents as Neutron's API shows them, for tests of what is computed from them."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from kilonova.network.hints import BINDINGS, KINDS
from kilonova.network.upkeep import dhcp_device_id

Json = dict[str, Any]


def uid(name: str) -> str:
    """A UUID that follows from the name."""
    return str(uuid.UUID(bytes=hashlib.md5(name.encode(), usedforsecurity=False).digest()))


def mac(name: str) -> str:
    digest = hashlib.md5(name.encode(), usedforsecurity=False).digest()
    return "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in digest[:3])


class Documents:
    """`kinds[kind][id]`; methods add a document by its name and return it."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS}

    def _add(self, kind: str, name: str, **fields: Any) -> Json:
        document = {"id": uid(name), "name": name, "project_id": "project"} | fields
        self.kinds[kind][document["id"]] = document
        return document

    def network(self, name: str, vni: int = 100, **fields: Any) -> Json:
        kind = {"provider:network_type": "vxlan", "provider:segmentation_id": vni, "provider:physical_network": None}
        return self._add("networks", name, **{"mtu": 1450, "admin_state_up": True, "subnets": []} | kind | fields)

    def flat(self, name: str, physical: str = "public") -> Json:
        network = self.network(name, mtu=1500)
        kind = {"provider:network_type": "flat", "provider:segmentation_id": None}
        network.update(kind | {"provider:physical_network": physical})
        return network

    def subnet(self, name: str, network: Json, cidr: str, **fields: Any) -> Json:
        version = 6 if ":" in cidr else 4
        base = cidr.rpartition("/")[0]
        first = base + "1" if version == 6 else base.rpartition(".")[0] + ".1"
        more = {"gateway_ip": first, "enable_dhcp": True, "dns_nameservers": [], "host_routes": []}
        return self._add("subnets", name, network_id=network["id"], cidr=cidr, ip_version=version, **more | fields)

    def port(self, name: str, network: Json, host: str = "h1", *addresses: tuple[Json, str], **fields: Any) -> Json:
        """A server's port, bound to the host."""
        values = {
            "network_id": network["id"],
            "mac_address": mac(name),
            "device_owner": "compute:nova",
            "device_id": uid(f"server of {name}"),
            "binding:host_id": host,
            "binding:vif_type": "bridge",
            "admin_state_up": True,
            "port_security_enabled": True,
            "security_groups": [],
            "status": "DOWN",
            "fixed_ips": [{"subnet_id": subnet["id"], "ip_address": address} for subnet, address in addresses],
        }
        return self._add("ports", name, **values | fields)

    def dhcp_port(self, network: Json, host: str, *addresses: tuple[Json, str]) -> Json:
        who = {"device_owner": "network:dhcp", "device_id": dhcp_device_id(network["id"])}
        return self.port(f"dhcp of {network['name']}", network, host, *addresses, **who)

    def inactive_binding(self, port: Json, host: str) -> Json:
        """Besides the one that `binding:host_id` names."""
        binding = {"id": f"{port['id']}/{host}", "port_id": port["id"], "host": host}
        self.kinds[BINDINGS][binding["id"]] = binding
        return binding

    def router(self, name: str, **fields: Any) -> Json:
        return self._add("routers", name, **{"admin_state_up": True, "routes": [], "status": "ACTIVE"} | fields)

    def router_port(
        self, router: Json, network: Json, host: str, *addresses: tuple[Json, str], gateway: bool = False
    ) -> Json:
        owner = "network:router_gateway" if gateway else "network:router_interface"
        name = f"{router['name']} in {network['name']}"
        return self.port(name, network, host, *addresses, device_owner=owner, device_id=router["id"])

    def floating(self, name: str, address: str, router: Json, port: Json, fixed: str) -> Json:
        return self._add(
            "floatingips", name, floating_ip_address=address, router_id=router["id"], port_id=port["id"],
            fixed_ip_address=fixed, status="DOWN",
        )  # fmt: skip

    def group(self, name: str, *rules: Json) -> Json:
        full = [
            {"direction": "ingress", "ethertype": "IPv4", "protocol": None, "port_range_min": None,
             "port_range_max": None, "remote_ip_prefix": None, "remote_group_id": None} | rule
            for rule in rules
        ]  # fmt: skip
        return self._add("security-groups", name, security_group_rules=full)
