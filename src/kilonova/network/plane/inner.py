"""What namespaces for DHCP and for routers have in common: a device linked to a bridge, its addresses, its end."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import Any

from kilonova import netns
from kilonova.network.plane import names
from kilonova.network.plane.shell import Shell

Device = dict[str, Any]
"""As `ip -j -d addr show` has it."""


def devices(shell: Shell, space: str) -> dict[str, Device]:
    return {each["ifname"]: each for each in shell.show(space, "-d", "addr", "show") if each.get("ifname")}


def ensure_device(
    shell: Shell,
    host: str,
    space: str,
    found: dict[str, Device],
    *,
    device: str,
    port_id: str,
    network_id: str,
    mac: str,
    mtu: int,
    up: bool = True,
) -> None:
    """The device is in the namespace, and its other end in the network's bridge. Raises HostFailure."""
    tap = names.tap(port_id)
    there = found.get(device)
    if there is None:
        commands = [
            f"link add {tap} mtu {mtu} type veth peer name {device} address {mac} mtu {mtu} netns {space}",
            f"link set {tap} alias {names.MARK}",
            f"link set {tap} master {names.bridge(network_id)} up",
        ]
        if any(each.get("ifname") == tap for each in shell.show(host, "link", "show")):
            commands.insert(0, f"link del {tap}")
        shell.change(host, commands)
    wrong = there is not None and (there["mtu"] != mtu or there["address"] != mac)
    state = "up" if up else "down"
    if there is None or wrong or ("UP" in there["flags"]) != up:
        shell.change(space, [f"link set {device} address {mac} mtu {mtu} {state}"])


def address_commands(device: str, found: Device | None, wanted: Iterable[str]) -> list[str]:
    """From the addresses there are to those that should be (with prefix length); link-local ones are the kernel's."""
    have = {
        f"{each['local']}/{each['prefixlen']}" for each in (found or {}).get("addr_info", ()) if each["scope"] != "link"
    }
    want = {str(ipaddress.ip_interface(each)) for each in wanted}
    # No duplicate address detection: Networking has made sure, and it takes a second.
    return [f"addr del {each} dev {device}" for each in sorted(have - want)] + [
        f"addr add {each} dev {device}{' nodad' if ':' in each else ''}" for each in sorted(want - have)
    ]


def strays(found: Collection[str], wanted: Collection[str], prefixes: tuple[str, ...]) -> list[str]:
    """Commands that remove devices of ours that nobody wants."""
    return [f"link del {name}" for name in found if name.startswith(prefixes) and name not in wanted]


def make_space(space: str, *settings: str) -> None:
    """The namespace is there, with these kernel settings. Raises HostFailure, OSError."""
    netns.ensure(space)
    # Each time: whoever made it may have died right after.
    netns.settle(space, settings)
