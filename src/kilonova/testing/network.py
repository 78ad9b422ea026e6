"""Networking in memory, as strict as the real one: for unit tests and the fault harness.

It refuses what Neutron refuses (a MAC or an address twice on a network, missing networks, exceeded quotas, ...), and
binds ports to hosts: a port that is bound to a host becomes ACTIVE when that host's plane has wired it (`wired`).
"""

from __future__ import annotations

import ipaddress
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kilonova.errors import Invalid, NotFound, OverQuota, Unavailable
from kilonova.networking import Document, Filter, NetworkConflict

Event = Callable[[str, str, str], Awaitable[None]]
"""Told (name, server, port) as Networking tells Compute of what happened to a server's port."""


_OTHERS = ("security-group-rules", "rbac-policies")


def _id() -> str:
    return str(uuid.uuid4())


class FakeNetworking:
    def __init__(self, new_id: Callable[[], str] = _id) -> None:
        self._new_id = new_id
        self.collections: dict[str, dict[str, Document]] = {
            name: {} for name in (*_OTHERS, "networks", "subnets", "ports", "security-groups", "floatingips")
        }
        self.port_quota: dict[str, int] = {}
        """By project; -1 (unlimited) unless set."""
        self.unbindable: set[str] = set()
        """Hosts on which no port can be bound."""
        self.dies_before_binding = 0
        """Of so many calls that make ports nothing is answered: they are stored, and not bound."""
        self.auto_networks: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.on_event: Event | None = None

    # -- what a test sets up
    def add_network(
        self,
        name: str = "private",
        *,
        project_id: str,
        cidrs: Sequence[str] = ("10.0.0.0/24",),
        shared: bool = False,
        external: bool = False,
        id: str | None = None,
        **more: Any,
    ) -> Document:
        """A network with a subnet for each CIDR."""
        network: Document = {
            "id": id or self._new_id(), "name": name, "project_id": project_id, "tenant_id": project_id,
            "shared": shared, "router:external": external, "mtu": 1450, "status": "ACTIVE", "admin_state_up": True,
            "subnets": [], "port_security_enabled": True, **more,
        }  # fmt: skip
        self.collections["networks"][network["id"]] = network
        for cidr in cidrs:
            net = ipaddress.ip_network(cidr)
            subnet: Document = {
                "id": self._new_id(), "network_id": network["id"], "cidr": cidr, "ip_version": net.version,
                "gateway_ip": str(net[1]), "dns_nameservers": ["192.0.2.53"], "host_routes": [], "enable_dhcp": True,
                "ipv6_address_mode": "slaac" if net.version == 6 else None, "project_id": project_id,
            }  # fmt: skip
            self.collections["subnets"][subnet["id"]] = subnet
            network["subnets"].append(subnet["id"])
        self._default_group(project_id)
        return network

    def add_group(self, name: str, *, project_id: str) -> Document:
        group: Document = {
            "id": self._new_id(), "name": name, "description": f"{name} group", "project_id": project_id,
            "tenant_id": project_id, "security_group_rules": [],
        }  # fmt: skip
        self.collections["security-groups"][group["id"]] = group
        return group

    def ports_of(self, device_id: str) -> list[Document]:
        return [port for port in self.collections["ports"].values() if port["device_id"] == device_id]

    async def wired(self, port_id: str, host: str) -> None:
        """The plane of `host` has the port: it becomes ACTIVE, and Compute is told."""
        port = self.collections["ports"].get(port_id)
        if port is not None and port["binding:host_id"] == host and port["status"] != "ACTIVE":
            port["status"] = "ACTIVE"
            await self._tell("network-vif-plugged", port)

    # -- the protocol
    async def find(self, collection: str, filters: Mapping[str, Filter] | None = None) -> list[Document]:
        self.calls[f"GET {collection}"] += 1
        return [dict(document) for document in self.collections[collection].values() if _matches(document, filters)]

    async def show(self, collection: str, id: str) -> Document:
        self.calls[f"GET {collection}"] += 1
        return dict(self._get(collection, id))

    async def create(self, collection: str, documents: Sequence[Document]) -> list[Document]:
        self.calls[f"POST {collection}"] += 1
        made: list[Document] = []
        try:
            create = {
                "ports": self._create_port,
                "floatingips": self._create_floating,
                "security-groups": self._create_group,
                "security-group-rules": self._create_rule,
            }.get(collection) or self._create_other(collection)
            for document in documents:
                made.append(create(dict(document)))
        except Exception:
            for document in made:
                del self.collections[collection][document["id"]]
            raise
        if collection == "ports" and self.dies_before_binding:
            self.dies_before_binding -= 1
            for document in made:
                document["binding:vif_type"] = "unbound"
            raise Unavailable("Networking does not answer.")
        return [dict(document) for document in made]

    async def update(self, collection: str, id: str, changes: Document) -> Document:
        self.calls[f"PUT {collection}"] += 1
        document = self._get(collection, id)
        if collection == "ports":
            await self._update_port(document, dict(changes))
        elif collection == "floatingips":
            await self._associate(document, changes)
        else:
            document.update(changes)
        return dict(document)

    async def delete(self, collection: str, id: str) -> None:
        self.calls[f"DELETE {collection}"] += 1
        if collection == "security-groups" and any(
            id in port["security_groups"] for port in self.collections["ports"].values()
        ):
            raise NetworkConflict(f"Security Group {id} in use.", reason="SecurityGroupInUse")
        document = self.collections[collection].pop(id, None)
        if document is None:
            return
        if collection == "ports":
            await self._tell("network-vif-deleted", document)
            for floating in self.collections["floatingips"].values():
                if floating["port_id"] == id:
                    floating.update(port_id=None, fixed_ip_address=None)
        elif collection == "security-group-rules":
            rules = self._get("security-groups", document["security_group_id"])["security_group_rules"]
            rules[:] = [rule for rule in rules if rule["id"] != id]

    async def quota(self, project_id: str) -> Mapping[str, Mapping[str, int]]:
        self.calls["GET quotas"] += 1
        return {"port": {"limit": self.port_quota.get(project_id, -1), "used": self._used(project_id)}}

    async def auto_network(self, project_id: str) -> str:
        self.calls["GET auto-allocated-topology"] += 1
        if project_id not in self.auto_networks:
            raise Invalid(f"Unable to automatically allocate a network for project {project_id}")
        return self.auto_networks[project_id]

    # -- ports
    def _create_port(self, asked: Document) -> Document:
        network = self._get("networks", asked["network_id"])
        project = asked.get("project_id") or asked["tenant_id"]
        limit = self.port_quota.get(project, -1)
        if 0 <= limit <= self._used(project):
            raise OverQuota("Quota exceeded for resources: ['port'].")
        mac = asked.get("mac_address") or "fa:16:3e:" + ":".join(
            f"{byte:02x}" for byte in uuid.UUID(self._new_id()).bytes[:3]
        )
        others = [p for p in self.collections["ports"].values() if p["network_id"] == network["id"]]
        if any(other["mac_address"] == mac for other in others):
            raise NetworkConflict(
                f"Unable to complete operation for network {network['id']}. The mac address {mac} is in use.",
                reason="MacAddressInUse",
            )
        port: Document = {
            "id": asked.get("id") or self._new_id(), "name": asked.get("name", ""), "network_id": network["id"],
            "project_id": project, "tenant_id": project, "mac_address": mac, "status": "DOWN", "admin_state_up": True,
            "device_id": asked.get("device_id", ""), "device_owner": asked.get("device_owner", ""),
            "fixed_ips": self._addresses(network, asked.get("fixed_ips"), others),
            "security_groups": asked.get("security_groups") or [self._default_group(project)["id"]],
            "port_security_enabled": network["port_security_enabled"], "binding:host_id": "",
            "binding:vif_type": "unbound", "binding:vnic_type": "normal", "binding:vif_details": {},
            "binding:profile": {},
        }  # fmt: skip
        for group in port["security_groups"]:
            self._get("security-groups", group)
        self._bind(port, asked.get("binding:host_id", ""))
        self.collections["ports"][port["id"]] = port
        return port

    async def _update_port(self, port: Document, changes: Document) -> None:
        if "fixed_ips" in changes:
            network = self._get("networks", port["network_id"])
            others = [
                p for p in self.collections["ports"].values()
                if p["network_id"] == network["id"] and p["id"] != port["id"]
            ]  # fmt: skip
            port["fixed_ips"] = self._addresses(network, changes.pop("fixed_ips"), others)
        for group in changes.get("security_groups", ()):
            self._get("security-groups", group)
        host = changes.pop("binding:host_id", None)
        port.update(changes)
        if host is not None and ((host or "") != port["binding:host_id"] or port["binding:vif_type"] != "bridge"):
            self._bind(port, host or "")
            if not host:
                await self._tell("network-vif-unplugged", port)

    def _bind(self, port: Document, host: str) -> None:
        port["binding:host_id"] = host
        port["status"] = "DOWN"
        port["binding:vif_type"] = "unbound" if not host else "binding_failed" if host in self.unbindable else "bridge"

    def _addresses(self, network: Document, asked: Any, others: Sequence[Document]) -> list[Document]:
        taken = {ip["ip_address"] for other in others for ip in other["fixed_ips"]}
        subnets = [self.collections["subnets"][id] for id in network["subnets"]]
        found = []
        if asked:
            for wish in asked:
                address = wish.get("ip_address")
                of = [
                    s for s in subnets
                    if (address is None or ipaddress.ip_address(address) in ipaddress.ip_network(s["cidr"]))
                    and wish.get("subnet_id", s["id"]) == s["id"]
                ]  # fmt: skip
                if not of:
                    raise Invalid(f"IP address {address} is not a valid IP for any of the subnets on the network.")
                if address in taken:
                    raise NetworkConflict(
                        f"IP address {address} already allocated in subnet {of[0]['id']}.", reason="IpAddressInUse"
                    )
                found.append({"subnet_id": of[0]["id"], "ip_address": address or _free(of[0], taken)})
                taken.add(found[-1]["ip_address"])
            return found
        return [{"subnet_id": subnet["id"], "ip_address": _free(subnet, taken)} for subnet in subnets]

    # -- floating IPs and security groups
    def _create_floating(self, asked: Document) -> Document:
        network = self._get("networks", asked["floating_network_id"])
        subnet = self.collections["subnets"][network["subnets"][0]]
        known = self.collections["floatingips"].values()
        address = asked.get("floating_ip_address") or _free(subnet, {ip["floating_ip_address"] for ip in known})
        made: Document = {
            "id": self._new_id(), "status": "DOWN", "port_id": None, "fixed_ip_address": None, **asked,
            "floating_ip_address": address,
        }  # fmt: skip
        self.collections["floatingips"][made["id"]] = made
        return made

    async def _associate(self, floating: Document, changes: Document) -> None:
        before = self.collections["ports"].get(floating["port_id"])
        port = self._get("ports", changes["port_id"]) if changes["port_id"] else None
        fixed = changes.get("fixed_ip_address")
        if port is not None:
            fixed = fixed or port["fixed_ips"][0]["ip_address"]
            others = self.collections["floatingips"].values()
            if any((o["port_id"], o["fixed_ip_address"]) == (port["id"], fixed) and o is not floating for o in others):
                raise NetworkConflict(
                    f"Cannot associate floating IP {floating['floating_ip_address']}: that fixed IP has one already.",
                    reason="FloatingIPPortAlreadyAssociated",
                )
        floating.update(port_id=changes["port_id"], fixed_ip_address=fixed)
        for device in (before, port):
            if device is not None:
                await self._tell("network-changed", device)

    def _create_group(self, asked: Document) -> Document:
        group = self.add_group(asked["name"], project_id=asked["project_id"])
        group.update(asked)
        return group

    def _create_rule(self, asked: Document) -> Document:
        rules = self._get("security-groups", asked["security_group_id"])["security_group_rules"]
        made: Document = {"id": self._new_id(), "tenant_id": asked["project_id"], **asked}
        rules.append(made)
        self.collections["security-group-rules"][made["id"]] = made
        return made

    # -- inside
    def _create_other(self, collection: str) -> Callable[[Document], Document]:
        def create(document: Document) -> Document:
            made = {"id": self._new_id(), **document}
            self.collections[collection][made["id"]] = made
            return made

        return create

    def _get(self, collection: str, id: str) -> Document:
        document = self.collections[collection].get(id)
        if document is None:
            raise NotFound(f"{collection} {id} could not be found.")
        return document

    def _used(self, project_id: str) -> int:
        return sum(port["project_id"] == project_id for port in self.collections["ports"].values())

    def _default_group(self, project_id: str) -> Document:
        for group in self.collections["security-groups"].values():
            if group["name"] == "default" and group["project_id"] == project_id:
                return group
        return self.add_group("default", project_id=project_id)

    async def _tell(self, name: str, port: Document) -> None:
        if self.on_event is not None and port["device_owner"].startswith("compute:") and port["device_id"]:
            await self.on_event(name, port["device_id"], port["id"])


def _free(subnet: Document, taken: set[str]) -> str:
    for number, address in enumerate(ipaddress.ip_network(subnet["cidr"]).hosts()):
        if number > 1 and str(address) not in taken:
            return str(address)
    raise NetworkConflict(
        f"No more IP addresses available on network {subnet['network_id']}.", reason="IpAddressGenerationFailure"
    )


def _values(value: Any) -> set[str]:
    return {str(each) for each in value} if isinstance(value, list) else {str(value)}


def _matches(document: Document, filters: Mapping[str, Filter] | None) -> bool:
    for name, value in (filters or {}).items():
        if name == "fields":
            continue
        wanted = {str(value)} if isinstance(value, str | bool) else set(value)
        if name == "fixed_ips":
            if not {f"ip_address={ip['ip_address']}" for ip in document["fixed_ips"]} & wanted:
                return False
        elif not wanted & _values(document.get(name)):
            return False
    return True
