"""The link between this machine and the cloud's external network: one pair of devices, nothing else of the machine's.

The machine reaches floating IPs by the route that its end's address brings. It forwards nothing: what guests want
from the world beyond it, an operator has to allow.
"""

from __future__ import annotations

from kilonova.allinone.external import ExternalRange
from kilonova.errors import HostFailure
from kilonova.network.plane.shell import Shell

DEVICE = "uplink"
"""The end in the cloud's namespace."""


def outer_device(cloud_id: str) -> str:
    """The end on the machine."""
    return f"kn{cloud_id}"


def ensure(shell: Shell, cloud_id: str, space: str, wanted: ExternalRange) -> None:
    """Both ends are there and up, the outer one with the gateway's address. Raises HostFailure."""
    outer = outer_device(cloud_id)
    address = f"{wanted.gateway}/{wanted.cidr.prefixlen}"
    found = {each["ifname"]: each for each in shell.shown("-4", "addr", "show")}
    for name, other in found.items():
        taken = any(f"{each.get('local')}/{each.get('prefixlen')}" == address for each in other.get("addr_info", ()))
        if taken and name != outer:
            raise HostFailure(
                f"The cloud's external network {wanted.cidr} is in use on this machine, by {name}: "
                "take that away (another cloud: 'kilonova down' there), or use a new state directory."
            )
    link = found.get(outer)
    if link is None:
        if all(each["ifname"] != outer for each in shell.shown("link", "show")):
            shell.run("ip", "link", "add", outer, "type", "veth", "peer", "name", DEVICE, "netns", space)
        shell.run("ip", "addr", "replace", address, "dev", outer)
    if link is None or "UP" not in link.get("flags", ()):
        shell.run("ip", "link", "set", outer, "up")


def remove(shell: Shell, cloud_id: str) -> None:
    """Both ends are gone. Raises HostFailure."""
    if any(each["ifname"] == outer_device(cloud_id) for each in shell.shown("link", "show")):
        shell.run("ip", "link", "del", outer_device(cloud_id))
