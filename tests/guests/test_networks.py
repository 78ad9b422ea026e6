"""Networks as guests see them: three real guests of two projects, whose networks have the same addresses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kilonova.allinone import external, libvirtd, processes
from kilonova.network.plane import names
from tests.support.guests import PATIENCE, Lab, eventually

pytestmark = [
    pytest.mark.timeout(1200),
    # Of the SDK about itself.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="real guests need root, QEMU and libvirt"),
]

FIRST, SECOND = "10.0.0.10", "10.0.0.11"
GET = "wget -q -O - http://{} 2>&1 & pid=$!; sleep 3; kill $pid 2>/dev/null; wait"
"""A request that is given up: this busybox knows no time-out."""


class Guests(Lab):
    """Project admin: `a1` (10.0.0.10) and `a2` (.11) on `lan`, with a router. Project demo: `b1` (10.0.0.10)."""

    def start(self) -> None:
        super().start()
        self.lan = self.network(self.admin, "lan", "10.0.0.0/24", router=True, v6="fd00:0:0:1::/64")
        self.other = self.network(self.demo, "other", "10.0.0.0/24")
        self.group_a = self.group(self.admin, "a")
        self.group_member = self.group(self.admin, "member")
        self.group_b = self.group(self.demo, "b", {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})
        drive = {"config_drive": True}
        a1 = self.boot(self.admin, "a1", self.lan, FIRST, "a", **drive)
        a2 = self.boot(self.admin, "a2", self.lan, SECOND, "a")
        b1 = self.boot(self.demo, "b1", self.other, FIRST, "b", **drive)
        self.a1, self.a2 = self.wait(self.admin, a1, a2)
        (self.b1,) = self.wait(self.demo, b1)

    def from_a2(self, command: str) -> str:
        return self.inside(self.lan, SECOND, command)


def test_guests_get_their_addresses_by_dhcp(lab: Guests) -> None:
    for who, network, server, address in (
        (lab.admin, lab.lan, lab.a1, FIRST),
        (lab.admin, lab.lan, lab.a2, SECOND),
        (lab.demo, lab.other, lab.b1, FIRST),
    ):
        assert f"guest ready {server.name} {address} " in lab.console(who, server)
        shown = lab.inside(network, address, "ip -4 -o addr show dev eth0; ip route; cat /sys/class/net/eth0/mtu")
        assert f"inet {address}/24" in shown
        assert "169.254.169.254 via 10.0.0.2" in shown
        assert shown.rstrip().endswith("1450")
        assert lab.port(who, server).status == "ACTIVE"


def test_the_metadata_service_knows_equal_addresses_apart(lab: Guests) -> None:
    for network, server in ((lab.lan, lab.a1), (lab.other, lab.b1)):
        url = "http://169.254.169.254/openstack/latest/meta_data.json"
        told = json.loads(lab.inside(network, FIRST, f"wget -q -O - {url}"))
        assert (told["uuid"], told["name"]) == (server.id, server.name)
        assert "admin_pass" not in told
    assert lab.inside(lab.lan, FIRST, "wget -q -O - http://169.254.169.254/latest/meta-data/local-ipv4") == FIRST
    # The one without a config drive had its key from there.
    assert "src=metadata" in lab.console(lab.admin, lab.a2)


def test_projects_with_the_same_addresses_do_not_meet(lab: Guests) -> None:
    assert lab.inside(lab.lan, FIRST, "hostname").strip() == "a1"
    assert lab.inside(lab.other, FIRST, "hostname").strip() == "b1"
    # b1 lets everybody in on this port, and is at the address that a1 is at.
    assert "b1 boots" not in lab.from_a2(GET.format(FIRST))
    b1_mac = lab.port(lab.demo, lab.b1).mac_address
    assert b1_mac not in lab.from_a2(f"ping -c 1 -W 1 {FIRST} >/dev/null; ip neigh")


def test_what_is_not_allowed_is_denied_and_opens_for_running_guests(lab: Guests) -> None:
    # Neighbours on one bridge are filtered as well.
    assert "a1 boots" not in lab.from_a2(GET.format(FIRST))
    rule = lab.allow(lab.admin, lab.group_a, protocol="tcp", port_range_min=80, port_range_max=80)
    eventually(lambda: "a1 boots" in lab.from_a2(GET.format(FIRST)))
    lab.admin.network.delete_security_group_rule(rule)
    eventually(lambda: "a1 boots" not in lab.from_a2(GET.format(FIRST)))


def test_a_rule_for_a_group_admits_its_members_only(lab: Guests) -> None:
    rule = lab.allow(lab.admin, lab.group_a, protocol="icmp", remote_group_id=lab.group_member.id)
    ping = f"ping -c 2 -W 2 {FIRST} | grep received"
    port = lab.port(lab.admin, lab.a2)
    assert " 0 packets received" in lab.from_a2(ping)
    lab.admin.network.update_port(port, security_groups=[lab.group_a.id, lab.group_member.id])
    eventually(lambda: " 0 packets received" not in lab.from_a2(ping))
    lab.admin.network.update_port(port, security_groups=[lab.group_a.id])
    eventually(lambda: " 0 packets received" in lab.from_a2(ping))
    lab.admin.network.delete_security_group_rule(rule)


def test_a_spoofed_address_and_a_spoofed_mac_are_dropped(lab: Guests) -> None:
    rule = lab.allow(lab.admin, lab.group_a, protocol="icmp")
    eventually(lambda: "2 packets received" in lab.from_a2(f"ping -c 2 -W 2 {FIRST}"))
    spoofed = (
        f"ip addr add 10.0.0.77/24 dev eth0; ping -c 2 -W 2 -I 10.0.0.77 {FIRST}; ip addr del 10.0.0.77/24 dev eth0"
    )
    assert " 0 packets received" in lab.from_a2(spoofed)
    script = (
        "mac=$(cat /sys/class/net/eth0/address); sleep 1; ip link set eth0 address fa:16:3e:de:ad:01;"
        f" ping -c 2 -W 2 {FIRST} >/run/spoofed 2>&1; ip link set eth0 address $mac;"
        f" ping -c 2 -W 2 {FIRST} >/run/own 2>&1"
    )
    lab.from_a2(f"rm -f /run/own; ( {script} ) >/dev/null 2>&1 </dev/null &")
    eventually(lambda: "received" in lab.from_a2("cat /run/own"))
    assert " 0 packets received" in lab.from_a2("cat /run/spoofed")
    assert " 0 packets received" not in lab.from_a2("cat /run/own")
    lab.admin.network.delete_security_group_rule(rule)


class Listener:
    """Takes connections on the machine's end of the external network; `peers`: who came."""

    def __init__(self, address: str) -> None:
        self.socket = socket.create_server((address, 0))
        self.port = self.socket.getsockname()[1]
        self.peers: list[str] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                connection, (peer, _) = self.socket.accept()
            except OSError:
                return
            self.peers.append(peer)
            connection.close()


def test_floating_ip_in_and_translated_out(lab: Guests) -> None:
    public = lab.admin.network.find_network("public")
    floating = lab.admin.network.create_ip(floating_network_id=public.id, port_id=lab.port(lab.admin, lab.a1).id)
    # From this machine, by its ordinary routes.
    assert lab.ssh([], floating.floating_ip_address, "hostname").strip() == "a1"
    assert lab.admin.network.get_ip(floating).status == "ACTIVE"
    eventually(
        lambda: (
            floating.floating_ip_address
            in [each["addr"] for each in lab.admin.compute.get_server(lab.a1).addresses["lan"]]
        )
    )
    wanted = external.external_range(lab.spaces.host.removeprefix("kn-"))
    listener = Listener(str(wanted.gateway))
    ask = f"nc -w 5 {wanted.gateway} {listener.port} </dev/null"
    lab.inside(lab.lan, FIRST, ask)
    lab.from_a2(ask)
    router = next(iter(lab.admin.network.routers(name="lan")))
    outside = router.external_gateway_info["external_fixed_ips"][0]["ip_address"]
    eventually(lambda: listener.peers == [floating.floating_ip_address, outside])
    listener.socket.close()
    lab.admin.network.delete_ip(floating)


def test_ipv6_between_guests(lab: Guests) -> None:
    rule = lab.allow(lab.admin, lab.group_a, protocol="icmpv6", ethertype="IPv6")
    (address,) = [ip["ip_address"] for ip in lab.port(lab.admin, lab.a1).fixed_ips if ":" in ip["ip_address"]]
    eventually(lambda: address in lab.inside(lab.lan, FIRST, "ip -6 -o addr show dev eth0"))
    eventually(lambda: "2 packets received" in lab.from_a2(f"ping -6 -c 2 -W 2 {address}"))
    lab.admin.network.delete_security_group_rule(rule)


@pytest.fixture
def six(lab: Guests) -> Iterator[tuple[Any, Any]]:
    """A guest whose first NIC gets its IPv6 address by DHCP, and whose second one only the name servers."""
    networks = [
        lab.network(
            lab.admin, mode, f"10.6.{number}.0/24", router=True, v6=f"fd00:6:{number}::/64", mode=f"dhcpv6-{mode}",
            dns=(f"2001:db8::{number}",),
        )
        for number, mode in enumerate(("stateful", "stateless"), start=1)
    ]  # fmt: skip
    server = lab.admin.compute.create_server(
        name="six", image_id=lab.image.id, flavor_id=lab.flavor.id, key_name="lab", config_drive=True,
        networks=[{"uuid": network.id} for network in networks], security_groups=[{"name": "a"}],
    )  # fmt: skip
    (server,) = lab.wait(lab.admin, server)
    yield networks[0], server
    lab.admin.compute.delete_server(server)
    lab.admin.compute.wait_for_delete(server, wait=PATIENCE)


def test_dhcpv6_stateful_and_stateless(lab: Guests, six: tuple[Any, Any]) -> None:
    network, server = six
    shown = {}
    for name, addresses in lab.admin.compute.get_server(server).addresses.items():
        shown |= {(name, each["version"]): each["addr"] for each in addresses}
    here = shown["stateful", 4]
    for nic, name in (("eth0", "stateful"), ("eth1", "stateless")):
        wanted = f"inet6 {shown[name, 6]}/"
        eventually(lambda wanted=wanted, nic=nic: wanted in lab.inside(network, here, f"ip -6 -o addr show dev {nic}"))  # type: ignore[misc]
    # The config drive names the servers too, so they are forgotten, and DHCP is asked once more.
    again = (
        "kill $(cat /run/dhcp6c.pid); sleep 2; : >/etc/resolv.conf;"
        " dhcp6c -c /run/dhcp6c.conf -p /run/dhcp6c.pid eth0 eth1"
    )
    lab.inside(network, here, again)
    told = ["nameserver", "2001:db8::1", "nameserver", "2001:db8::2"]
    eventually(lambda: sorted(lab.inside(network, here, "cat /etc/resolv.conf").split()) == sorted(told))
    eventually(lambda: f"inet6 {shown['stateful', 6]}/" in lab.inside(network, here, "ip -6 -o addr show dev eth0"))


def test_an_interface_comes_and_goes_while_the_guest_runs(lab: Guests) -> None:
    """After all that leaves by a2's default route: the lease on the other network takes it along when it goes."""
    extra = lab.network(lab.admin, "extra", "10.9.0.0/24")
    made = lab.admin.compute.create_server_interface(lab.a2, net_id=extra.id)
    (address,) = [ip["ip_address"] for ip in made.fixed_ips]
    eventually(lambda: f"nic added eth1 {made.mac_addr} {address}" in lab.console(lab.admin, lab.a2))
    shown = lab.admin.compute.get_server(lab.a2).addresses["extra"]
    assert [each["addr"] for each in shown] == [address]
    lab.admin.compute.delete_server_interface(made, server=lab.a2)
    eventually(lambda: "nic removed eth1" in lab.console(lab.admin, lab.a2))
    eventually(lambda: not list(lab.admin.network.ports(network_id=extra.id, device_id=lab.a2.id)))


def test_what_is_broken_is_repaired_and_no_guest_restarts(lab: Guests) -> None:
    public = lab.admin.network.find_network("public")
    floating = lab.admin.network.create_ip(floating_network_id=public.id, port_id=lab.port(lab.admin, lab.a1).id)

    def works() -> bool:
        return lab.ssh([], floating.floating_ip_address, "hostname").strip() == "a1"

    def leased() -> bool:
        return f"lease of {SECOND} obtained" in lab.from_a2("udhcpc -i eth0 -n -q -t 4 -T 2 -s /etc/udhcpc.sh 2>&1")

    assert works()
    assert leased()
    host = lab.spaces.host
    _in(host, "nft", "flush", "ruleset")
    eventually(
        lambda: (
            "chain to-guests" in _in(host, "nft", "list", "ruleset")
            or "to-guests" in _in(host, "nft", "list", "ruleset")
        )
    )
    _in(host, "ip", "link", "del", names.bridge(lab.lan.id))
    eventually(
        lambda: names.bridge(lab.lan.id) in _in(host, "ip", "-o", "link", "show", "master", names.bridge(lab.lan.id))
    )
    eventually(works)
    router = next(iter(lab.admin.network.routers(name="lan")))
    _in(lab.spaces.router(router.id), "nft", "flush", "ruleset")
    eventually(works)
    _in(lab.spaces.router(router.id), "ip", "addr", "flush", "dev", _outside(lab, router))
    eventually(works)
    _kill_dnsmasq(lab)
    eventually(leased)
    # All at once, and a new start.
    lab.cloud.kill()
    _kill_dnsmasq(lab)
    _in(host, "nft", "flush", "ruleset")
    _in(host, "ip", "link", "del", names.bridge(lab.lan.id))
    lab.cloud.up()
    eventually(works)
    eventually(leased)
    for server in (lab.a1, lab.a2):
        console = lab.console(lab.admin, server)
        assert console.count("guest ready") == 1
        assert lab.admin.compute.get_server(server).status == "ACTIVE"
    lab.admin.network.delete_ip(floating)


def _in(space: str, *words: str) -> str:
    return subprocess.run(["ip", "netns", "exec", space, *words], capture_output=True, text=True, check=True).stdout


def _outside(lab: Guests, router: Any) -> str:
    shown = _in(lab.spaces.router(router.id), "ip", "-o", "link", "show")
    return next(line.split()[1].partition("@")[0] for line in shown.splitlines() if f" {names.OUTSIDE}" in line)


def _kill_dnsmasq(lab: Guests) -> None:
    directory: Path = lab.cloud.directory / "network/plane" / lab.spaces.dhcp(lab.lan.id)
    process = processes.recall(directory / "process.json")
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
