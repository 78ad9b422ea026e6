"""The role `network`'s pure parts: hints, what is kept in Neutron, what is reported, addresses of a cloud."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilonova.allinone.external import external_range
from kilonova.network import hints, upkeep
from kilonova.network.outline import outlines
from kilonova.network.role import PlaneHost
from kilonova.network.statuses import PlaneState, differences
from kilonova.network.upkeep import BindPort, MakeDhcpPort, MoveDhcpPort, RemovePort, dhcp_device_id

HOSTS = ["h1", "h2"]


def documents(**kinds: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {kind: {d["id"]: d for d in kinds.get(kind.replace("-", "_"), [])} for kind in hints.KINDS}


def port(
    id: str, host: str = "h1", *, owner: str = "compute:nova", status: str = "DOWN", **more: Any
) -> dict[str, Any]:
    return {
        "id": id,
        "network_id": "n1",
        "device_owner": owner,
        "device_id": "s1",
        "binding:host_id": host,
        "binding:vif_type": "bridge" if host else "unbound",
        "status": status,
        "admin_state_up": True,
        "fixed_ips": [],
        **more,
    }


NETWORK = {"id": "n1", "project_id": "p1"}
SUBNET = {"id": "sub1", "network_id": "n1", "enable_dhcp": True}


@pytest.mark.parametrize("text", ["@kilonova-test-hints", "127.0.0.1:0"])
def test_a_hint_arrives_as_it_was_sent(text: str) -> None:
    with hints.listen(text) as listener:
        listener.settimeout(10)
        if text[0] != "@":
            text = f"127.0.0.1:{listener.getsockname()[1]}"
        sender = hints.Sender(text)
        with sender.quiet():
            sender.send("ports", ["unheard"])
        sender.send("ports", ["a", "b"])
        sender.send("routers", [None])
        assert hints.decode(listener.recv(hints.LARGEST)) == hints.Hint("ports", ("a", "b"))
        assert hints.decode(listener.recv(hints.LARGEST)) == hints.Hint("routers")
        sender.close()


def test_nobody_listening_is_no_error() -> None:
    sender = hints.Sender("@kilonova-test-nobody")
    sender.send("ports", ["a"])
    sender.close()
    hints.Sender("").send("ports", ["a"])


def test_a_hint_about_many_names_the_collection_and_fits_a_datagram() -> None:
    many = tuple(f"{number:036d}" for number in range(hints.MOST_IDS + 1))
    assert hints.decode(hints.encode(hints.Hint("ports", many))) == hints.Hint("ports")
    assert len(hints.encode(hints.Hint("security-groups", many[:-1]))) <= hints.LARGEST


@pytest.mark.parametrize("text", ["", "host", ":1", "host:port"])
def test_a_bad_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected @NAME or HOST:PORT"):
        hints.address(text)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert hints.address("[::1]:9697") == (socket.AF_INET6, ("::1", 9697))


@given(
    st.binary(max_size=200)
    | st.sampled_from([b"{}", b"[]", b'{"kind": "ports", "ids": [1]}', b'{"kind": 1, "ids": 2}'])
)
def test_noise_is_no_hint(data: bytes) -> None:
    assert hints.decode(data) is None


def test_the_first_server_on_a_network_brings_its_dhcp_port() -> None:
    nobody = documents(networks=[NETWORK], subnets=[SUBNET], ports=[port("a", "")])
    assert upkeep.missing(nobody, HOSTS) == []
    served = documents(networks=[NETWORK], subnets=[SUBNET], ports=[port("a", "h2")])
    assert upkeep.missing(served, HOSTS) == [MakeDhcpPort("n1", "p1", "h2", ("sub1",))]
    assert upkeep.missing(served, ["h1"]) == []


def test_dhcp_ports_follow_the_subnets_and_extras_go() -> None:
    dhcp = {"owner": upkeep.DHCP, "device_id": dhcp_device_id("n1")}
    has = [{"subnet_id": "sub1", "ip_address": "10.0.0.2"}]
    first, second = port("d1", fixed_ips=has, **dhcp), port("d2", fixed_ips=has, **dhcp)
    settled = documents(networks=[NETWORK], subnets=[SUBNET], ports=[port("a"), first])
    assert upkeep.missing(settled, HOSTS) == []
    doubled = documents(networks=[NETWORK], subnets=[SUBNET], ports=[port("a"), second, first])
    assert upkeep.missing(doubled, HOSTS) == [RemovePort("d2")]
    another = documents(networks=[NETWORK], subnets=[SUBNET, {**SUBNET, "id": "sub2"}], ports=[port("a"), first])
    wanted = MoveDhcpPort("d1", ("sub1", "sub2"), (("sub1", "10.0.0.2"), ("sub2", None)))
    assert upkeep.missing(another, HOSTS) == [wanted]
    without = documents(networks=[NETWORK], subnets=[{**SUBNET, "enable_dhcp": False}], ports=[port("a"), first])
    assert upkeep.missing(without, HOSTS) == [RemovePort("d1")]


def test_somebody_elses_dhcp_port_is_left_alone() -> None:
    foreign = port("d1", owner=upkeep.DHCP, device_id="dhcp-of-an-agent")
    assert upkeep.missing(documents(networks=[NETWORK], ports=[foreign]), HOSTS) == []


def test_a_router_stays_where_it_is_as_long_as_that_host_lives() -> None:
    inside = port("r1", "h2", owner="network:router_interface", device_id="router")
    outside = port("r2", "", owner="network:router_gateway", device_id="router")
    found = documents(ports=[inside, outside])
    assert upkeep.missing(found, HOSTS) == [BindPort("r2", "h2")]
    assert set(upkeep.missing(found, ["h1"])) == {BindPort("r1", "h1"), BindPort("r2", "h1")}
    assert upkeep.missing(found, []) == []


@given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=8), st.uuids())
def test_another_hosts_going_moves_no_router(hosts: set[str], router: object) -> None:
    chosen = upkeep.router_host(str(router), [], hosts)
    assert chosen in hosts
    for gone in hosts - {chosen}:
        assert upkeep.router_host(str(router), [], hosts - {gone}) == chosen


def test_ports_are_reported_by_difference() -> None:
    found = documents(
        ports=[port("new"), port("known", status="ACTIVE"), port("gone", status="ACTIVE"), port("else", "h9")]
    )
    told = differences(found, {"h1": PlaneState(ports=frozenset({"new", "known", "else"}))}, {("else", "h1")})
    assert told.ports == [
        {"id": "new", "host": "h1", "status": "ACTIVE"},
        {"id": "gone", "host": "h1", "status": "DOWN"},
    ]


def test_a_port_that_is_switched_off_is_not_active() -> None:
    found = documents(
        ports=[port("off", admin_state_up=False), port("failed", **{"binding:vif_type": "binding_failed"})]
    )
    assert not differences(found, {"h1": PlaneState(ports=frozenset({"off", "failed"}))})


def test_a_port_wired_where_it_will_move_to_is_told_once() -> None:
    found = documents(ports=[port("moving", status="ACTIVE", **{"binding:profile": {"migrating_to": "h2"}})])
    planes = {"h1": PlaneState(ports=frozenset({"moving"})), "h2": PlaneState(ports=frozenset({"moving"}))}
    assert differences(found, planes).ports == [{"id": "moving", "host": "h2", "status": "ACTIVE"}]
    assert not differences(found, planes, {("moving", "h2")})


def test_a_host_that_says_it_has_anothers_port_is_not_believed() -> None:
    found = documents(
        ports=[port("moving", status="ACTIVE", **{"binding:profile": {"migrating_to": "h2"}}), port("still")]
    )
    assert not differences(found, {"h3": PlaneState(ports=frozenset({"moving", "still"}))})


def test_floating_ips_and_routers_are_as_their_routers_host_says() -> None:
    gateway = port("g", owner="network:router_gateway", device_id="r", status="ACTIVE")
    floatings = [
        {"id": "up", "port_id": "a", "router_id": "r", "status": "DOWN"},
        {"id": "free", "port_id": None, "router_id": None, "status": "ACTIVE"},
        {"id": "elsewhere", "port_id": "b", "router_id": "r2", "status": "ACTIVE"},
    ]
    found = documents(ports=[gateway], routers=[{"id": "r", "status": "ACTIVE"}], floatingips=floatings)
    state = PlaneState(ports=frozenset({"g"}), routers={"r": "ERROR"}, floatingips={"up": "ACTIVE"})
    told = differences(found, {"h1": state})
    assert told.floatingips == {"up": "ACTIVE", "free": "DOWN"}
    assert told.routers == {"r": "ERROR"}
    assert differences(found, {}).floatingips == {"free": "DOWN"}


def test_a_long_report_is_sent_in_parts_ports_first() -> None:
    found = documents(
        ports=[port(str(number)) for number in range(3)],
        floatingips=[{"id": "f", "port_id": None, "status": "ACTIVE"}],
    )
    told = differences(found, {"h1": PlaneState(ports=frozenset({"0", "1", "2"}))})
    assert (len(told.first(2).ports), told.first(2).floatingips) == (2, {})
    assert (len(told.first(9).ports), told.first(9).floatingips) == (3, {"f": "DOWN"})


def test_an_outline_names_what_is_bound_to_a_host() -> None:
    gateway = port("g", "h2", owner="network:router_gateway", device_id="r")
    found = documents(
        ports=[port("b"), port("a"), gateway, port("unbound", "")],
        floatingips=[{"id": "f", "port_id": "a", "router_id": "r"}, {"id": "free", "port_id": None, "router_id": None}],
    )
    plans = outlines(found, {host: PlaneHost(host=host, incarnation="1") for host in HOSTS})
    assert (plans["h1"].ports, plans["h1"].routers) == (["a", "b"], [])
    assert (plans["h2"].ports, plans["h2"].routers, plans["h2"].floatingips) == (["g"], ["r"], ["f"])


@given(st.integers(0, 2**32 - 1))
def test_every_cloud_has_an_external_range(number: int) -> None:
    found = external_range(f"{number:08x}")
    assert found.cidr.prefixlen == 24
    assert all(address in found.cidr for address in (found.gateway, *found.pool))
    assert IPv4Address("172.24.1.0") <= found.cidr[0] <= IPv4Address("172.24.254.0")
