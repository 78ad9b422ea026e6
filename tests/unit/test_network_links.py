"""From a host's devices to the commands that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kilonova.network.plan import (
    Advertised,
    DhcpHost,
    DhcpPlan,
    DhcpSubnet,
    FloatingPlan,
    Limit,
    NetworkPlan,
    Plan,
    PortPlan,
    RouterPlan,
    RouterPort,
)
from kilonova.network.plane import advertise, dhcp, garp, limits, names, nat
from kilonova.network.plane.links import EVERYBODY, Site, devices, forwarding_work, work

NET, PORT = "6d5d1a42-1666-4000-8000-000000000000", "f5521133-6000-4000-8000-000000000000"
BRIDGE, TAP = names.bridge(NET), names.tap(PORT)
NETWORK = NetworkPlan(
    id=NET, mtu=1450, zone=5, vni=5, peers=("192.0.2.2",), forwarding=(("fa:16:3e:00:00:02", "192.0.2.2"),)
)
PLAN = Plan(networks=(NETWORK,), ports=(PortPlan(id=PORT, network_id=NET, mark=1),))
SITE = Site(tunnel_ip="192.0.2.1", uplinks={"public": "uplink"})


def link(name: str, kind: str, **more: Any) -> dict[str, Any]:
    facts = {"ifname": name, "mtu": 1450, "flags": ["UP"], "linkinfo": {"info_kind": kind}}
    return facts | more


def tunnel(**more: Any) -> dict[str, Any]:
    info = {"info_kind": "vxlan", "info_data": {"id": 5, "local": "192.0.2.1"}}
    return link("vx5", "vxlan", master=BRIDGE, linkinfo=info, ifalias="kilonova") | more


def test_an_empty_host_gets_bridge_and_tunnel_and_waits_for_the_tap() -> None:
    done = work(PLAN, [], SITE)
    assert done.commands == [
        f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0",
        f"link set {BRIDGE} mtu 1450 up",
        "link add vx5 mtu 1450 type vxlan id 5 local 192.0.2.1 dstport 4789 nolearning",
        "link set vx5 alias kilonova",
        f"link set vx5 master {BRIDGE} up",
    ]
    assert done.plugged == set()


def test_what_is_as_it_should_be_is_left_alone() -> None:
    done = work(PLAN, [link(BRIDGE, "bridge"), tunnel(), link(TAP, "tun", master=BRIDGE)], SITE)
    assert (done.commands, done.plugged) == ([], {PORT})


def test_a_tap_that_lost_its_bridge_gets_it_again() -> None:
    done = work(PLAN, [link(BRIDGE, "bridge"), tunnel(), link(TAP, "tun")], SITE)
    assert done.commands == [f"link set {TAP} master {BRIDGE} up"]


def test_a_tunnel_from_another_address_is_made_anew() -> None:
    info = {"info_kind": "vxlan", "info_data": {"id": 5, "local": "192.0.2.99"}}
    done = work(PLAN, [link(BRIDGE, "bridge"), tunnel(linkinfo=info)], SITE)
    assert done.commands[0] == "link del vx5"


def test_a_tunnel_whose_maker_died_before_it_was_marked_is_marked() -> None:
    done = work(PLAN, [link(BRIDGE, "bridge"), tunnel(ifalias=None)], SITE)
    assert done.commands == ["link set vx5 alias kilonova"]


def test_the_devices_that_are_no_hosts_are_the_plans_and_there() -> None:
    known = [BRIDGE, TAP, "vx5", "eth0", "brqother"]
    assert devices(PLAN, known, SITE) == sorted((BRIDGE, TAP, "vx5"))
    assert devices(PLAN, known, Site()) == sorted((BRIDGE, TAP))
    assert devices(PLAN, ["eth0"], SITE) == []


def test_what_nobody_needs_goes_but_never_a_bridge_that_others_use() -> None:
    found = [
        link("brqgone", "bridge"),
        link("vx9", "vxlan", master="brqgone", ifalias="kilonova"),
        link("tapold", "veth", master="brqgone", ifalias="kilonova"),
        link("brqused", "bridge"),
        link("tapguest", "tun", master="brqused"),
        link("brqflat", "bridge"),
        link("uplink", "veth", master="brqflat"),
        link("eth0", "veth"),
        link("vx10", "vxlan"),
        link("tapother", "veth"),
        link("br0", "bridge"),
    ]
    done = work(Plan(), found, SITE)
    assert done.commands == [
        "link del vx9",
        "link del tapold",
        "link del brqgone",
        "link set uplink nomaster",
        "link del brqflat",
    ]


def test_a_flat_network_takes_its_uplink() -> None:
    flat = NetworkPlan(id=NET, mtu=1500, zone=1, physical="public")
    done = work(Plan(networks=(flat,)), [link(BRIDGE, "bridge", mtu=1500), link("uplink", "veth")], SITE)
    assert done.commands == [f"link set uplink master {BRIDGE} up"]


def test_forwarding_entries_are_those_of_the_plan() -> None:
    found = [
        {"ifname": "vx5", "mac": "fa:16:3e:00:00:09", "dst": "192.0.2.9"},
        {"ifname": "vx5", "mac": EVERYBODY, "dst": "192.0.2.2"},
        {"ifname": "vx5", "mac": "5a:00:00:00:00:01"},
        {"ifname": "vx77", "mac": EVERYBODY, "dst": "192.0.2.7"},
    ]
    assert forwarding_work(PLAN, found, SITE) == [
        "fdb del fa:16:3e:00:00:09 dev vx5 dst 192.0.2.9",
        "fdb append fa:16:3e:00:00:02 dev vx5 dst 192.0.2.2",
    ]


def test_dnsmasq_is_told_of_hosts_and_options() -> None:
    subnet = DhcpSubnet(
        id="s" * 36, cidr="10.0.0.0/24", version=4, address="10.0.0.2", gateway="10.0.0.1", dns=("192.0.2.53",)
    )
    six = DhcpSubnet(id="t" * 36, cidr="fd00::/64", version=6, address="fd00::2", mode="dhcpv6-stateful")
    host = DhcpHost(
        port_id="p" * 36, mac="fa:16:3e:00:00:01", name="web", addresses=((subnet.id, "10.0.0.5"), (six.id, "fd00::5")),
        options=((4, "bootfile-name", "x"), (4, "150", "192.0.2.9")),
    )  # fmt: skip
    plan = DhcpPlan(
        network_id=NET, port_id=PORT, mac="fa:16:3e:00:00:02", mtu=1450, subnets=(subnet, six), hosts=(host,)
    )
    assert dhcp.hosts(plan).splitlines() == [
        "fa:16:3e:00:00:01,set:tppppppppppp,10.0.0.5,web",
        "fa:16:3e:00:00:01,set:tppppppppppp,[fd00::5],web",
    ]
    options = dhcp.options(plan).splitlines()
    assert "tag:tsssssssssss,option:router,10.0.0.1" in options
    assert "tag:tsssssssssss,option:classless-static-route,169.254.169.254/32,10.0.0.2,0.0.0.0/0,10.0.0.1" in options
    assert "tag:tppppppppppp,option:bootfile-name,x" in options
    assert "tag:tppppppppppp,150,192.0.2.9" in options


@pytest.mark.parametrize(("mode", "known"), [("dhcpv6-stateful", True), ("dhcpv6-stateless", True), ("slaac", False)])
def test_a_guest_is_known_to_dhcpv6_wherever_it_asks(mode: str, known: bool, tmp_path: Path) -> None:
    subnet = DhcpSubnet(id="s" * 36, cidr="fd00::/64", version=6, address="fd00::2", mode=mode)
    host = DhcpHost(port_id="p" * 36, mac="fa:16:3e:00:00:01", name="web", addresses=((subnet.id, "fd00::5"),))
    plan = DhcpPlan(network_id=NET, port_id=PORT, mac="fa:16:3e:00:00:02", mtu=1450, subnets=(subnet,), hosts=(host,))
    assert ("[fd00::5]" in dhcp.hosts(plan)) == known
    assert ("dhcp-range=set:tsssssssssss,fd00::,static,64," in dhcp.fixed(plan, tmp_path)) == known


def test_a_subnet_without_gateway_and_servers_says_so() -> None:
    subnet = DhcpSubnet(id="s" * 36, cidr="10.0.0.0/24", version=4, address="10.0.0.2")
    plan = DhcpPlan(network_id=NET, port_id=PORT, mac="fa:16:3e:00:00:02", mtu=1450, subnets=(subnet,))
    options = dhcp.options(plan).splitlines()
    assert {"tag:tsssssssssss,option:router", "tag:tsssssssssss,option:dns-server"} <= set(options)
    assert not any("0.0.0.0/0" in option for option in options)


def router(**more: Any) -> RouterPlan:
    port = RouterPort(id=PORT, network_id=NET, mac="fa:16:3e:00:00:03", mtu=1450, addresses=("10.0.0.1/24",))
    return RouterPlan(id="r", ports=(port,), gateway=port, **more)


def test_a_router_without_translation_has_floating_ips_all_the_same() -> None:
    tables = nat.ruleset(router(floating=(FloatingPlan(id="f", address="172.24.1.9", fixed="10.0.0.5"),)))
    nat_table = tables["ip", "kilonova"]
    assert nat_table.sets["to-fixed"].elements == {"172.24.1.9 : 10.0.0.5"}
    assert not any("snat to 1" in rule for rule in nat_table.chains["leaving"].rules)


def test_a_router_that_is_off_lets_nothing_through() -> None:
    assert nat.ruleset(router(up=False))["inet", "kilonova"].chains["through"].rules == ("drop",)
    assert nat.ruleset(router())["inet", "kilonova"].chains["through"].rules == ()


def test_modes_of_ipv6_are_flags_of_the_advertisement() -> None:
    assert advertise.configuration(router()) is None
    for mode, managed, other, autonomous in (
        ("slaac", "off", "off", "on"),
        ("dhcpv6-stateless", "off", "on", "on"),
        ("dhcpv6-stateful", "on", "off", "off"),
    ):
        text = advertise.configuration(router(advertised=(Advertised(port_id=PORT, prefix="fd00::/64", mode=mode),)))
        assert text is not None
        for words in (f"AdvManagedFlag {managed};", f"AdvOtherConfigFlag {other};", f"AdvAutonomous {autonomous};"):
            assert words in text


def test_limits_are_enforced_on_both_ways() -> None:
    assert limits.commands("tap1", Limit(rate=1000)) == [
        "qdisc add dev tap1 root tbf rate 1000kbit burst 800kbit latency 50ms"
    ]
    assert limits.commands("tap1", None) == []
    rule = limits.rule("tap1", Limit(rate=2000, burst=500))
    assert rule == 'iifname "tap1" limit rate over 250000 bytes/second burst 62500 bytes drop'


def test_an_announcement_asks_for_its_own_address() -> None:
    frame = garp.frame("fa:16:3e:00:00:01", "172.24.1.9")
    assert frame[:6] == b"\xff" * 6
    assert frame[6:12] == frame[22:28] == bytes.fromhex("fa163e000001")
    assert frame[28:32] == frame[38:42] == bytes([172, 24, 1, 9])
