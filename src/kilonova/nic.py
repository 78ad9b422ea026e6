"""A server's network interface: as hosts build it, as its row caches it, as guests' documents tell of it."""

from __future__ import annotations

import msgspec


class FixedIp(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a port, and the floating ones that lead to it."""

    address: str
    floating: tuple[str, ...] = ()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    destination: str
    """CIDR"""
    gateway: str


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet of a port's network, with the port's addresses in it. `version`: 4 or 6."""

    id: str
    cidr: str
    version: int
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    dhcp: bool = True
    ipv6_address_mode: str | None = None
    """dhcpv6-stateful, dhcpv6-stateless, slaac; None: somebody else's business."""
    ips: tuple[FixedIp, ...] = ()


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """One port as Networking has it. `mtu` in bytes; 0: unknown."""

    port_id: str
    mac: str
    network_id: str
    network_name: str = ""
    mtu: int = 0
    vif_type: str = "unbound"
    vnic_type: str = "normal"
    tag: str | None = None
    """By which the guest recognises the device."""
    ours: bool = True
    """We made the port, and delete it with the server; a user's own is given back."""
    subnets: tuple[Subnet, ...] = ()

    @property
    def bridge(self) -> str:
        return f"brq{self.network_id[:11]}"

    @property
    def tap(self) -> str:
        return f"tap{self.port_id[:11]}"
