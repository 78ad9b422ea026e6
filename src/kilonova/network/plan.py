"""What one host's plane should have: the content of a PlanePlan, made by desired.py and applied by plane/."""

from __future__ import annotations

import msgspec


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network that is on the host: a bridge there, and the way to the other hosts that have it."""

    id: str
    mtu: int
    zone: int
    """Connection tracking's: addresses of two networks may be the same."""
    vni: int | None = None
    physical: str | None = None
    """The flat network that it is, by the name which hosts map to an interface of theirs."""
    peers: tuple[str, ...] = ()
    """Tunnel addresses of the other hosts that have it."""
    forwarding: tuple[tuple[str, str], ...] = ()
    """(MAC, tunnel address) of what is elsewhere."""
    local_macs: tuple[str, ...] = ()
    """Of what every host has for itself (DHCP), and no tunnel carries."""


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bandwidth in kbit/s and kbit; a `burst` of 0 is the plane's choice."""

    rate: int
    burst: int = 0


class PortPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A guest's port that is bound to the host. One that is not `up` passes nothing."""

    id: str
    network_id: str
    mark: int
    up: bool = True
    secured: bool = True
    """Whether spoofing is prevented and rules apply."""
    stateful: bool = True
    """Whether the answer to what its rules let pass may pass as well."""
    addresses: tuple[tuple[str, str], ...] = ()
    """(MAC, IP or CIDR) it may send from."""
    groups: tuple[str, ...] = ()
    to_guest: Limit | None = None
    from_guest: Limit | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Lets a packet pass. `low`, `high`: ports, or ICMP's type and code. `remote`: a CIDR; `members`: a set's name."""

    version: int
    protocol: str | None = None
    low: int | None = None
    high: int | None = None
    remote: str | None = None
    members: str | None = None


class GroupPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


class MemberSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Addresses that rules name together; none overlaps another."""

    name: str
    version: int
    cidrs: tuple[str, ...] = ()


class DhcpSubnet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    cidr: str
    version: int
    address: str
    """Of the DHCP port."""
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    """(destination, next hop)"""
    mode: str | None = None
    """For IPv6: slaac, dhcpv6-stateless, dhcpv6-stateful."""


class DhcpHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A guest's port on this host. `addresses`: (subnet, IP); `options`: (version, name or number, value)."""

    port_id: str
    mac: str
    name: str
    addresses: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[int, str, str], ...] = ()


class Client(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks the metadata service, by its address."""

    address: str
    server_id: str
    project_id: str


class DhcpPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """DHCP and the metadata proxy of one network. Every host has it under the same addresses."""

    network_id: str
    port_id: str
    mac: str
    mtu: int
    domain: str = ""
    subnets: tuple[DhcpSubnet, ...] = ()
    hosts: tuple[DhcpHost, ...] = ()
    clients: tuple[Client, ...] = ()


class RouterPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`addresses`: with prefix length."""

    id: str
    network_id: str
    mac: str
    mtu: int
    up: bool = True
    addresses: tuple[str, ...] = ()


class Advertised(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prefix that the router advertises on one of its ports. `mode`: slaac, dhcpv6-stateless, dhcpv6-stateful."""

    port_id: str
    prefix: str
    mode: str
    dns: tuple[str, ...] = ()


class FloatingPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    address: str
    fixed: str


class RouterPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    up: bool = True
    ports: tuple[RouterPort, ...] = ()
    gateway: RouterPort | None = None
    next_hops: tuple[str, ...] = ()
    """Of the default routes, one for each IP version."""
    snat: str | None = None
    """The address that what goes out gets, None when nothing is translated."""
    floating: tuple[FloatingPlan, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    advertised: tuple[Advertised, ...] = ()
    clients: tuple[Client, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    networks: tuple[NetworkPlan, ...] = ()
    ports: tuple[PortPlan, ...] = ()
    groups: tuple[GroupPlan, ...] = ()
    sets: tuple[MemberSet, ...] = ()
    dhcp: tuple[DhcpPlan, ...] = ()
    routers: tuple[RouterPlan, ...] = ()
