"""What guests are told of their networks."""

from __future__ import annotations

from kilonova.metadata.network_data import devices, network_data
from kilonova.nic import FixedIp, Nic, Route, Subnet

PORT = "5d84f5f6-0000-1111-2222-333344445555"


def nic(*subnets: Subnet, vif_type: str = "bridge", tag: str | None = None) -> Nic:
    return Nic(
        port_id=PORT,
        mac="fa:16:3e:00:00:01",
        network_id="net",
        mtu=1450,
        vif_type=vif_type,
        subnets=subnets,
        tag=tag,
    )


def subnet(cidr: str, address: str, *, version: int = 4, dhcp: bool = True, mode: str | None = None) -> Subnet:
    return Subnet(
        id=cidr,
        cidr=cidr,
        version=version,
        gateway="10.0.0.1" if version == 4 else "fd00::1",
        dns=("192.0.2.53",),
        routes=(Route(destination="198.51.100.0/24", gateway="10.0.0.9"),) if version == 4 else (),
        dhcp=dhcp,
        ipv6_address_mode=mode,
        ips=(FixedIp(address=address),),
    )


def test_a_server_without_ports_is_told_nothing() -> None:
    assert network_data(()) == {}


def test_with_dhcp_the_guest_asks_there() -> None:
    document = network_data((nic(subnet("10.0.0.0/24", "10.0.0.5")),))
    assert document == {
        "links": [
            {
                "id": "tap5d84f5f6-00",
                "vif_id": PORT,
                "type": "bridge",
                "mtu": None,
                "ethernet_mac_address": "fa:16:3e:00:00:01",
            }
        ],
        "networks": [{"id": "network0", "link": "tap5d84f5f6-00", "network_id": "net", "type": "ipv4_dhcp"}],
        "services": [{"type": "dns", "address": "192.0.2.53"}],
    }


def test_without_dhcp_addresses_and_routes_are_told() -> None:
    document = network_data((nic(subnet("10.0.0.0/24", "10.0.0.5", dhcp=False), vif_type="odd"),))
    (network,) = document["networks"]  # type: ignore[misc]
    assert network == {
        "id": "network0",
        "link": "tap5d84f5f6-00",
        "network_id": "net",
        "type": "ipv4",
        "ip_address": "10.0.0.5",
        "netmask": "255.255.255.0",
        "routes": [
            {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
            {"network": "198.51.100.0", "netmask": "255.255.255.0", "gateway": "10.0.0.9"},
        ],
        "services": [{"type": "dns", "address": "192.0.2.53"}],
    }
    (link,) = document["links"]  # type: ignore[misc]
    assert (link["type"], link["mtu"]) == ("phy", 1450)


def test_of_each_ip_version_the_first_subnet_counts() -> None:
    both = nic(
        subnet("fd00::/64", "fd00::5", version=6), subnet("10.0.0.0/24", "10.0.0.5"), subnet("10.1.0.0/24", "10.1.0.5")
    )
    types = [network["type"] for network in network_data((both,))["networks"]]  # type: ignore[attr-defined]
    assert types == ["ipv4_dhcp", "ipv6_dhcp"]


def test_ipv6_says_how_addresses_come_about() -> None:
    document = network_data((nic(subnet("fd00::/64", "fd00::5", version=6, mode="slaac")),))
    (network,) = document["networks"]  # type: ignore[misc]
    assert (network["type"], network["ip_address"], network["netmask"]) == (
        "ipv6_slaac",
        "fd00::5",
        "ffff:ffff:ffff:ffff::",
    )


def test_only_tagged_nics_are_devices() -> None:
    assert devices((nic(), nic(tag="red"))) == (
        {
            "type": "nic",
            "bus": "none",
            "address": "none",
            "mac": "fa:16:3e:00:00:01",
            "tags": ["red"],
            "vf_trusted": False,
        },
    )
