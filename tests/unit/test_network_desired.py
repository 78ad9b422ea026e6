"""What hosts should have, computed from Neutron's documents."""

from __future__ import annotations

import ipaddress

import pytest

from kilonova.network.desired import plans
from kilonova.network.outline import outlines
from kilonova.network.plan import Client, Limit, Rule
from kilonova.network.role import PlaneHost
from tests.support.neutron_documents import Documents, mac, uid

TUNNELS = {"h1": "192.0.2.1", "h2": "192.0.2.2", "h3": None}
HOSTS = {name: PlaneHost(host=name, incarnation="1", facts=address) for name, address in TUNNELS.items()}


def test_a_host_has_the_networks_of_its_ports_and_knows_where_the_others_are() -> None:
    world = Documents()
    lan, other = world.network("lan", 7), world.network("other", 8)
    subnet = world.subnet("lan", lan, "10.0.0.0/24")
    world.port("a", lan, "h1", (subnet, "10.0.0.5"))
    world.port("b", lan, "h2", (subnet, "10.0.0.6"))
    world.port("c", lan, "h3", (subnet, "10.0.0.7"))
    world.port("d", other, "h2")
    found = plans(world.kinds, HOSTS)
    (network,) = found["h1"].networks
    assert (network.id, network.vni, network.mtu) == (lan["id"], 7, 1450)
    # A host without a tunnel address is not to be reached.
    assert network.peers == ("192.0.2.2",)
    assert network.forwarding == ((mac("b"), "192.0.2.2"),)
    assert {each.id for each in found["h2"].networks} == {lan["id"], other["id"]}
    assert [port.id for port in found["h1"].ports] == [uid("a")]


def test_a_port_may_send_from_its_addresses_and_those_it_is_allowed() -> None:
    world = Documents()
    lan = world.network("lan")
    subnet = world.subnet("lan", lan, "10.0.0.0/24")
    pairs = [{"ip_address": "10.0.0.99"}, {"ip_address": "10.1.0.0/24", "mac_address": "FA:16:3E:00:00:09"}]
    world.port("a", lan, "h1", (subnet, "10.0.0.5"), allowed_address_pairs=pairs)
    (port,) = plans(world.kinds, HOSTS)["h1"].ports
    own = [address for each, address in port.addresses if each == mac("a")]
    assert "10.0.0.5" in own
    assert "10.0.0.99" in own
    assert any(ipaddress.ip_address(each).is_link_local for each in own)
    assert ("fa:16:3e:00:00:09", "10.1.0.0/24") in port.addresses


def test_rules_name_sets_of_the_groups_members() -> None:
    world = Documents()
    lan = world.network("lan")
    subnet = world.subnet("lan", lan, "10.0.0.0/24")
    web = world.group("web")
    world.kinds["address-groups"][uid("office")] = {
        "id": uid("office"),
        "addresses": ["198.51.100.0/25", "198.51.100.128/25"],
    }
    ssh = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
    db = world.group(
        "db",
        ssh | {"remote_ip_prefix": "192.0.2.0/24"},
        ssh | {"remote_ip_prefix": "0.0.0.0/0"},
        ssh | {"remote_group_id": web["id"]},
        ssh | {"remote_address_group_id": uid("office")},
        {"protocol": "icmp", "ethertype": "IPv6"},
        {"protocol": "vrrp", "direction": "egress"},
        {"protocol": "any"},
    )
    world.port("a", lan, "h1", (subnet, "10.0.0.5"), security_groups=[db["id"]])
    world.port("b", lan, "h2", (subnet, "10.0.0.6"), security_groups=[web["id"]])
    world.port("c", lan, "h2", (subnet, "10.0.0.7"), security_groups=[web["id"]])
    plan = plans(world.kinds, HOSTS)["h1"]
    (group,) = plan.groups
    members, office = f"group4-{web['id']}", f"addresses4-{uid('office')}"
    assert set(group.ingress) == {
        Rule(version=4, protocol="tcp", low=22, high=22, remote="192.0.2.0/24"),
        Rule(version=4, protocol="tcp", low=22, high=22),
        Rule(version=4, protocol="tcp", low=22, high=22, members=members),
        Rule(version=4, protocol="tcp", low=22, high=22, members=office),
        Rule(version=6, protocol="icmpv6"),
        Rule(version=4),
    }
    assert group.egress == (Rule(version=4, protocol="112"),)
    sets = {each.name: each.cidrs for each in plan.sets}
    assert sets == {members: ("10.0.0.6/31",), office: ("198.51.100.0/24",)}


def test_dhcp_and_metadata_are_for_the_hosts_own_guests() -> None:
    world = Documents()
    lan = world.network("lan", dns_domain="example.org.")
    subnet = world.subnet("lan", lan, "10.0.0.0/24", dns_nameservers=["192.0.2.53"])
    world.dhcp_port(lan, "h1", (subnet, "10.0.0.2"))
    options = [{"opt_name": "bootfile-name", "opt_value": "x", "ip_version": 4}]
    a = world.port("a", lan, "h1", (subnet, "10.0.0.5"), extra_dhcp_opts=options)
    world.port("b", lan, "h2", (subnet, "10.0.0.6"))
    found = plans(world.kinds, HOSTS)
    (dhcp,) = found["h1"].dhcp
    assert (dhcp.mac, dhcp.domain, dhcp.subnets[0].address) == (mac("dhcp of lan"), "example.org", "10.0.0.2")
    (host,) = dhcp.hosts
    assert (host.mac, host.name, host.options) == (mac("a"), "host-10-0-0-5", ((4, "bootfile-name", "x"),))
    assert dhcp.clients == (Client(address="10.0.0.5", server_id=a["device_id"], project_id="project"),)
    # The server is on every host under one address, which no tunnel carries.
    assert found["h2"].dhcp[0].mac == dhcp.mac
    assert found["h2"].networks[0].local_macs == (dhcp.mac,)


@pytest.mark.parametrize(
    ("address_mode", "ra_mode", "mode"),
    [
        ("slaac", "slaac", "slaac"),
        ("dhcpv6-stateless", "dhcpv6-stateless", "dhcpv6-stateless"),
        (None, "slaac", "slaac"),
        (None, None, "dhcpv6-stateful"),
    ],
)
def test_how_a_subnet_gives_ipv6_addresses(address_mode: str | None, ra_mode: str | None, mode: str) -> None:
    world = Documents()
    lan = world.network("lan")
    six = world.subnet("six", lan, "fd00::/64", ipv6_ra_mode=ra_mode, ipv6_address_mode=address_mode)
    world.port("a", lan, "h1", (six, "fd00::5"))
    world.dhcp_port(lan, "h1", (six, "fd00::2"))
    (plan,) = plans(world.kinds, HOSTS)["h1"].dhcp
    assert [subnet.mode for subnet in plan.subnets] == [mode]


def test_a_live_migrations_destination_has_the_port_before_it_is_bound_there() -> None:
    world = Documents()
    lan = world.network("lan", 7)
    subnet = world.subnet("lan", lan, "10.0.0.0/24")
    a = world.port("a", lan, "h1", (subnet, "10.0.0.5"))
    world.port("b", lan, "h2", (subnet, "10.0.0.6"))
    a["binding:profile"] = {"migrating_to": "h2"}
    found = plans(world.kinds, HOSTS)
    assert [port.id for port in found["h1"].ports] == [uid("a")]
    assert {port.id for port in found["h2"].ports} == {uid("a"), uid("b")}
    # Until then others' packets for it go to the host where it runs.
    assert found["h2"].networks[0].forwarding == ((mac("a"), "192.0.2.1"),)
    a["binding:host_id"] = "h2"
    found = plans(world.kinds, HOSTS)
    assert (found["h1"].ports, len(found["h2"].ports)) == ((), 2)


def test_a_port_is_wired_wherever_it_has_a_binding() -> None:
    world = Documents()
    lan = world.network("lan", 7)
    subnet = world.subnet("lan", lan, "10.0.0.0/24")
    a = world.port("a", lan, "h1", (subnet, "10.0.0.5"))

    def where() -> tuple[set[str], set[str]]:
        """Hosts that have the port in their plans, and in their outlines."""
        found = plans(world.kinds, HOSTS), outlines(world.kinds, HOSTS)
        return tuple({host for host, plan in each.items() if plan.ports} for each in found)  # type: ignore[return-value]

    assert where() == ({"h1"}, {"h1"})
    world.inactive_binding(a, "h2")
    assert where() == ({"h1", "h2"}, {"h1", "h2"})
    # Activated: the old one has become the inactive one.
    world.kinds["plane-bindings"].clear()
    a["binding:host_id"] = "h2"
    world.inactive_binding(a, "h1")
    assert where() == ({"h1", "h2"}, {"h1", "h2"})
    assert plans(world.kinds, HOSTS)["h1"].networks[0].forwarding == ((mac("a"), "192.0.2.2"),)
    world.kinds["plane-bindings"].clear()
    assert where() == ({"h2"}, {"h2"})
    # A binding that counts is no second one, whatever a stale document says.
    world.inactive_binding(a, "h2")
    assert len(plans(world.kinds, HOSTS)["h2"].ports) == 1


def test_one_group_without_state_makes_the_port_so() -> None:
    world = Documents()
    lan = world.network("lan")
    subnet = world.subnet("lan", lan, "10.0.0.0/24")
    group = world.group("g")
    for name, groups in (("a", [group["id"]]), ("b", [])):
        world.port(name, lan, "h1", (subnet, "10.0.0.5"), security_groups=groups)
    group["stateful"] = False
    assert {port.id: port.stateful for port in plans(world.kinds, HOSTS)["h1"].ports} == {
        uid("a"): False,
        uid("b"): True,
    }


def test_a_router_translates_and_leads_floating_ips() -> None:
    world = Documents()
    lan, public = world.network("lan"), world.flat("public")
    inside, outside = world.subnet("lan", lan, "10.0.0.0/24"), world.subnet("public", public, "172.24.9.0/24")
    six = world.subnet("six", lan, "fd00::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    routes = [{"destination": "198.51.100.0/24", "nexthop": "10.0.0.9"}]
    router = world.router("r", external_gateway_info={"enable_snat": True}, routes=routes)
    world.router_port(router, lan, "h1", (inside, "10.0.0.1"), (six, "fd00::1"))
    world.router_port(router, public, "h1", (outside, "172.24.9.20"), gateway=True)
    a = world.port("a", lan, "h2", (inside, "10.0.0.5"))
    world.floating("f", "172.24.9.30", router, a, "10.0.0.5")
    found = plans(world.kinds, HOSTS)
    (plan,) = found["h1"].routers
    assert (plan.snat, plan.next_hops) == ("172.24.9.20", ("172.24.9.1",))
    assert [(each.address, each.fixed) for each in plan.floating] == [("172.24.9.30", "10.0.0.5")]
    assert plan.ports[0].addresses == ("10.0.0.1/24", "fd00::1/64")
    assert plan.routes == (("198.51.100.0/24", "10.0.0.9"),)
    assert [(each.prefix, each.mode) for each in plan.advertised] == [("fd00::/64", "slaac")]
    # Whoever is behind the router may ask it for metadata, on whatever host.
    assert [each.address for each in plan.clients] == ["10.0.0.5"]
    assert {each.physical for each in found["h1"].networks} == {None, "public"}
    assert found["h2"].routers == ()
    router["external_gateway_info"]["enable_snat"] = False
    assert plans(world.kinds, HOSTS)["h1"].routers[0].snat is None


def test_bandwidth_limits_of_the_port_come_before_the_networks() -> None:
    world = Documents()
    lan = world.network("lan", qos_policy_id="slow")
    rule = {"type": "bandwidth_limit", "max_kbps": 1000, "max_burst_kbps": 0, "direction": "egress"}
    world.kinds["policies"] |= {
        "slow": {"id": "slow", "rules": [rule]},
        "fast": {"id": "fast", "rules": [rule | {"max_kbps": 9000, "direction": "ingress"}]},
    }
    world.port("a", lan, "h1", qos_network_policy_id="slow")
    world.port("b", lan, "h1", qos_policy_id="fast", qos_network_policy_id="slow")
    ports = {port.id: port for port in plans(world.kinds, HOSTS)["h1"].ports}
    assert (ports[uid("a")].to_guest, ports[uid("a")].from_guest) == (None, Limit(rate=1000))
    assert (ports[uid("b")].to_guest, ports[uid("b")].from_guest) == (Limit(rate=9000), None)
