"""A plane in a namespace that is not its own, as a hypervisor's: what others have there stays as it is."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from kilonova import netns
from kilonova.allinone import libvirtd
from kilonova.errors import HostFailure
from kilonova.network.plane import names
from tests.support.neutron_documents import uid
from tests.support.planes import TwoHosts, ip, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="network namespaces need root"),
]


def disabled(space: str, device: str) -> bool:
    """Whether IPv6 is off there."""
    path = Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
    return netns.in_namespace(netns.path_of(space), lambda: path.read_text().strip() == "1")


async def test_others_devices_keep_ipv6_and_their_names(two: TwoHosts) -> None:
    space, world = two.space("h1"), two.documents
    await two.planes["h1"].stop()
    netns.settle(space, ["net.ipv6.conf.default.disable_ipv6=0"])
    ip("-n", space, "link", "add", "vx77", "type", "vxlan", "id", "77", "dstport", "4790", "dev", "eth0")
    two.shared = True
    await two.plane("h1", 1)
    network = world.network("lan", 7)
    subnet = world.subnet("lan", network, "10.0.0.0/24")
    port = world.port("a", network, "h1", (subnet, "10.0.0.5"))
    world.port("b", network, "h2", (subnet, "10.0.0.6"))
    world.dhcp_port(network, "h1", (subnet, "10.0.0.2"))
    two.guest("h1", port, "10.0.0.5")
    await two.send()
    await until(lambda: "h1" in two.reports and uid("a") in two.reports["h1"].ports)
    ours = (names.bridge(network["id"]), names.tap(port["id"]), names.tap(uid("dhcp of lan")), "vx7")
    # The DHCP server's end is made after the look at the others.
    await until(lambda: all(disabled(space, device) for device in ours))
    others = ("default", "all", "vx77", "eth0")
    assert {device: disabled(space, device) for device in others} == dict.fromkeys(others, False)
    del world.kinds["ports"][port["id"]]
    ip("-n", space, "link", "del", names.tap(port["id"]))
    await two.send()
    await until(lambda: " vx7:" not in ip("-n", space, "-o", "link"))
    assert " vx77:" in ip("-n", space, "-o", "link")


def test_a_machines_own_namespace_gets_a_name_once() -> None:
    name, other = (f"kt{secrets.token_hex(3)}" for _ in range(2))
    try:
        netns.name_ours(name)
        netns.name_ours(name)
        assert netns.path_of(name).samefile("/proc/self/ns/net")
        netns.ensure(other)
        with pytest.raises(HostFailure, match=f"{other} is another one"):
            netns.name_ours(other)
    finally:
        for each in (name, other):
            netns.remove(each)
