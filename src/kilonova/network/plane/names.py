"""Names of what the plane makes: of 15 characters at most where the kernel says so."""

from __future__ import annotations

from dataclasses import dataclass

BRIDGE, TAP, TUNNEL = "brq", "tap", "vx"
DHCP_DEVICE = "dhcp"
"""The DHCP namespace's end of its link."""
MARK = "kilonova"
"""The alias of tunnels, and of the bridges' ends of links to namespaces: nobody else's devices are removed."""
INSIDE, OUTSIDE = "qr-", "qg-"
"""A router's ends of its links: to a project's network, to an external one."""


def bridge(network_id: str) -> str:
    return BRIDGE + network_id[:11]


def tap(port_id: str) -> str:
    """A guest's device, or the bridge's end of a link to a namespace."""
    return TAP + port_id[:11]


def tunnel(vni: int) -> str:
    return f"{TUNNEL}{vni}"


@dataclass(frozen=True, slots=True)
class Spaces:
    """Names of the namespaces of one host's plane. `host`: of the one with the bridges."""

    host: str

    def dhcp(self, network_id: str) -> str:
        return f"{self.host}-d-{network_id[:11]}"

    def router(self, router_id: str) -> str:
        return f"{self.host}-r-{router_id[:11]}"

    @property
    def inner(self) -> str:
        """What the names of all but the host's own begin with."""
        return f"{self.host}-"
