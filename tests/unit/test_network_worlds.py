"""Worlds drawn at random: what hosts are told to have is what Neutron's documents say, computed here once more."""

from __future__ import annotations

import copy
import ipaddress
import random
from collections.abc import Iterable, Mapping

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kilonova.network.desired import plans
from kilonova.network.plan import Limit, Plan
from kilonova.network.role import PlaneHost
from tests.support.neutron_documents import Documents, Json, uid

TUNNELS = {"h1": "192.0.2.1", "h2": "192.0.2.2", "h3": None}
HOSTS = {name: PlaneHost(host=name, incarnation="1", facts=address) for name, address in TUNNELS.items()}
MODES = ("slaac", "dhcpv6-stateless", "dhcpv6-stateful", None)
OTHER_MAC = "fa:16:3e:00:00:99"


@st.composite
def worlds(draw: st.DrawFn) -> Documents:
    world = Documents()
    for n in range(2):
        chosen = draw(st.sets(st.sampled_from(("198.51.100.0/25", "198.51.100.128/25", "203.0.113.7/32", "fd00::/64"))))
        world.kinds["address-groups"][uid(f"a{n}")] = {"id": uid(f"a{n}"), "addresses": sorted(chosen)}
        rules = [
            {"type": "bandwidth_limit", "max_kbps": 100 * (n + 1), "max_burst_kbps": 0, "direction": direction}
            for direction in draw(st.sets(st.sampled_from(("ingress", "egress"))))
        ]
        world.kinds["policies"][f"q{n}"] = {"id": f"q{n}", "rules": rules}
    groups = [
        world.group(
            f"g{n}", {"remote_group_id": uid(f"g{(n + 1) % 3}"), "ethertype": draw(st.sampled_from(("IPv4", "IPv6")))},
            {"protocol": "udp", "remote_address_group_id": uid(f"a{n % 2}")},
        )
        for n in range(3)
    ]  # fmt: skip
    policy = st.sampled_from(("q0", "q1", None))
    networks = [
        world.network(f"n{n}", draw(st.integers(1, 70000)), qos_policy_id=draw(policy))
        for n in range(draw(st.integers(1, 4)))
    ]
    fours = [world.subnet(f"s{n}", network, "10.0.0.0/24") for n, network in enumerate(networks)]
    sixes = []
    for n, network in enumerate(networks):
        mode = draw(st.sampled_from(MODES))
        sixes.append(world.subnet(f"six{n}", network, "fd00:1::/64", ipv6_ra_mode=mode, ipv6_address_mode=mode))
    hosts = st.sampled_from(("h1", "h2", "h3", "elsewhere", ""))
    for n in range(draw(st.integers(0, 12))):
        which = draw(st.integers(0, len(networks) - 1))
        chosen = draw(st.sets(st.sampled_from([group["id"] for group in groups])))
        pairs = [{"ip_address": "10.0.0.128/25"}, {"ip_address": "10.0.9.9", "mac_address": OTHER_MAC}]
        port = world.port(
            f"p{n}", networks[which], draw(hosts),
            (fours[which], f"10.0.0.{10 + n}"), (sixes[which], f"fd00:1::{10 + n}"), security_groups=sorted(chosen),
            admin_state_up=draw(st.booleans()), port_security_enabled=draw(st.booleans()),
            allowed_address_pairs=draw(st.lists(st.sampled_from(pairs), max_size=2, unique_by=str)),
            qos_policy_id=draw(policy),
        )  # fmt: skip
        for host in draw(st.sets(st.sampled_from(tuple(HOSTS)))) if port["binding:host_id"] else ():
            if host != port["binding:host_id"]:
                world.inactive_binding(port, host)
    _routers(draw, world, networks, fours, sixes)
    return world


def _routers(draw: st.DrawFn, world: Documents, networks: list[Json], fours: list[Json], sixes: list[Json]) -> None:
    public = world.flat("public")
    outside = world.subnet("public", public, "172.24.9.0/24", enable_dhcp=False)
    for which in sorted(draw(st.sets(st.integers(0, len(networks) - 1)))):
        inside = (fours[which], "10.0.0.1"), (sixes[which], "fd00:1::1")
        world.dhcp_port(networks[which], "h1", (fours[which], "10.0.0.2"), (sixes[which], "fd00:1::2"))
        host = draw(st.sampled_from(("h1", "h2")))
        gateway = draw(st.booleans())
        info = {"enable_snat": draw(st.booleans())} if gateway else None
        routes = [{"destination": "198.51.100.0/24", "nexthop": "10.0.0.9"}] if draw(st.booleans()) else []
        router = world.router(f"r{which}", external_gateway_info=info, routes=routes)
        world.router_port(router, networks[which], host, *inside)
        if gateway:
            world.router_port(router, public, host, (outside, f"172.24.9.{20 + which}"), gateway=True)
            guests = [p for p in world.kinds["ports"].values() if _is_guest(p)]
            here = [p for p in guests if p["network_id"] == networks[which]["id"]]
            for number, port in enumerate(here[:2]):
                address = f"172.24.9.{100 + 10 * which + number}"
                world.floating(f"f{which}{number}", address, router, port, port["fixed_ips"][0]["ip_address"])


def _is_guest(port: Json) -> bool:
    return str(port["device_owner"]).startswith("compute:")


def _guests(world: Documents, host: str) -> dict[str, Json]:
    """The ports that a host is to wire, by id."""
    also = {(b["port_id"], b["host"]) for b in world.kinds["plane-bindings"].values()}
    return {
        port["id"]: port
        for port in world.kinds["ports"].values()
        if _is_guest(port) and (port["binding:host_id"] == host or (port["id"], host) in also)
    }


def _covered(cidrs: Iterable[str]) -> set[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return {ipaddress.ip_network(each, strict=False) for each in cidrs}


@settings(max_examples=60, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_plans_hold_together(world: Documents, chance: random.Random) -> None:
    found = plans(world.kinds, HOSTS)
    assert set(found) == set(HOSTS)
    zones: dict[str, int] = {}
    for host, plan in found.items():
        here = {network.id for network in plan.networks}
        marks = [port.mark for port in plan.ports]
        assert len(set(marks)) == len(marks)
        assert all(0 < mark < 2**32 for mark in marks)
        for network in plan.networks:
            assert 0 < network.zone < 65536
            assert zones.setdefault(network.id, network.zone) == network.zone
            assert HOSTS[host].facts not in network.peers
        assert len({network.zone for network in plan.networks}) == len(here)
        assert {port.network_id for port in plan.ports} <= here
        # Everything that is referred to is there.
        groups = {group.id for group in plan.groups}
        sets = {each.name for each in plan.sets}
        assert {group for port in plan.ports for group in port.groups} <= groups
        assert {rule.members for group in plan.groups for rule in (*group.ingress, *group.egress)} <= sets | {None}
        assert {each.network_id for each in plan.dhcp} <= here
        assert {port.network_id for router in plan.routers for port in router.ports} <= here
        for each in plan.sets:
            networks = [ipaddress.ip_network(cidr) for cidr in each.cidrs]
            assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan
    # In whatever order the documents come.
    shuffled = copy.deepcopy(world.kinds)
    for kind, documents in shuffled.items():
        items = list(documents.items())
        chance.shuffle(items)
        shuffled[kind] = dict(items)
    assert plans(shuffled, HOSTS) == found
    # Without a host the others keep what is theirs.
    fewer = {name: host for name, host in HOSTS.items() if name != "h2"}
    again = plans(world.kinds, fewer)
    assert again["h1"].ports == found["h1"].ports
    assert again["h1"].dhcp == found["h1"].dhcp


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_ports_are_as_their_documents_say(world: Documents) -> None:
    for host, plan in plans(world.kinds, HOSTS).items():
        guests = _guests(world, host)
        assert {port.id for port in plan.ports} == set(guests)
        for port in plan.ports:
            document = guests[port.id]
            assert (port.up, port.secured) == (document["admin_state_up"], document["port_security_enabled"])
            assert set(port.groups) == set(document["security_groups"])
            # What it may send as: its own, and what it is allowed besides; all else that is said is link-local.
            own = {(document["mac_address"], each["ip_address"]) for each in document["fixed_ips"]}
            own |= {
                (each.get("mac_address", document["mac_address"]), each["ip_address"])
                for each in document["allowed_address_pairs"]
            }
            assert own <= set(port.addresses)
            rest = set(port.addresses) - own
            assert all(ipaddress.ip_address(address).is_link_local for _, address in rest)
            assert {which for which, _ in rest} == {which for which, _ in own}
            assert (port.to_guest, port.from_guest) == _limits(world, document)


def _limits(world: Documents, port: Json) -> tuple[Limit | None, Limit | None]:
    policy = port["qos_policy_id"] or world.kinds["networks"][port["network_id"]]["qos_policy_id"]
    rules = world.kinds["policies"][policy]["rules"] if policy else []
    rates = {rule["direction"]: Limit(rate=rule["max_kbps"]) for rule in rules}
    return rates.get("ingress"), rates.get("egress")


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_sets_hold_the_members_of_groups_and_nobody_else(world: Documents) -> None:
    members: dict[str, set[str]] = {}
    for port in world.kinds["ports"].values():
        addresses = [each["ip_address"] for each in [*port["fixed_ips"], *port.get("allowed_address_pairs", [])]]
        for group in port["security_groups"]:
            members.setdefault(group, set()).update(addresses)
    for plan in plans(world.kinds, HOSTS).values():
        for each in plan.sets:
            kind, _, of = each.name.partition("-")
            if kind.startswith("group"):
                wanted = _covered(members.get(of, ()))
            else:
                wanted = _covered(world.kinds["address-groups"][of]["addresses"])
            same = {net for net in wanted if net.version == each.version}
            assert _covered(each.cidrs) == set(ipaddress.collapse_addresses(same))  # type: ignore[type-var]


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_routers_and_dhcp_serve_what_they_have(world: Documents) -> None:
    kinds = world.kinds
    for host, plan in plans(kinds, HOSTS).items():
        for dhcp in plan.dhcp:
            served = {p["id"] for p in _guests(world, host).values() if p["network_id"] == dhcp.network_id}
            assert {each.port_id for each in dhcp.hosts} == served
            for subnet in dhcp.subnets:
                mode = kinds["subnets"][subnet.id].get("ipv6_address_mode")
                wanted = None if subnet.version == 4 else mode or "dhcpv6-stateful"
                assert subnet.mode == wanted
            assert _asks(dhcp.clients) == _servers(world, {dhcp.network_id}, served)
        bound = {p["device_id"] for p in kinds["ports"].values() if p["binding:host_id"] == host and _is_router(p)}
        assert {router.id for router in plan.routers} == bound
        for router in plan.routers:
            document = kinds["routers"][router.id]
            info = document["external_gateway_info"]
            gateways = [
                p for p in kinds["ports"].values()
                if p["device_id"] == router.id and p["device_owner"] == "network:router_gateway"
            ]  # fmt: skip
            outside = gateways[0]["fixed_ips"][0]["ip_address"] if gateways else None
            assert router.snat == (outside if info and info["enable_snat"] else None)
            assert (router.gateway is not None, router.next_hops) == (bool(info), ("172.24.9.1",) if info else ())
            assert {(each.id, each.address, each.fixed) for each in router.floating} == {
                (f["id"], f["floating_ip_address"], f["fixed_ip_address"])
                for f in kinds["floatingips"].values()
                if f["router_id"] == router.id
            }
            assert router.routes == tuple((each["destination"], each["nexthop"]) for each in document["routes"])
            (inside,) = router.ports
            subnets = [s for s in kinds["subnets"].values() if s["network_id"] == inside.network_id]
            (six,) = [s for s in subnets if s["ip_version"] == 6]
            advertised = [(each.prefix, each.mode) for each in router.advertised]
            assert advertised == ([(six["cidr"], six["ipv6_ra_mode"])] if six["ipv6_ra_mode"] else [])
            everybody = {p["id"] for p in kinds["ports"].values() if _is_guest(p) and p["binding:host_id"]}
            assert _asks(router.clients) == _servers(world, {inside.network_id}, everybody)


def _is_router(port: Json) -> bool:
    return "router" in port["device_owner"]


def _asks(clients: Iterable[object]) -> Mapping[str, str]:
    return {each.address: each.server_id for each in clients}  # type: ignore[attr-defined]


def _servers(world: Documents, networks: set[str], ports: set[str]) -> Mapping[str, str]:
    """Whose each address is that may ask for metadata."""
    return {
        each["ip_address"]: port["device_id"]
        for port in world.kinds["ports"].values()
        if port["id"] in ports and port["network_id"] in networks
        for each in port["fixed_ips"]
    }
