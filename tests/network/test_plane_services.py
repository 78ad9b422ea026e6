"""What planes do besides passing packets on this kernel: limits, routers, DHCP, who asks for metadata."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time

import httpx
import pytest

from kilonova import netns
from kilonova.allinone import libvirtd
from kilonova.metadata.signing import sign
from kilonova.network.plane import names
from tests.support.neutron_documents import uid
from tests.support.planes import PATIENCE, Lan, ip, listening, reaches, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="network namespaces need root"),
]


async def test_a_limit_of_bandwidth_is_set_and_taken_away(lan: Lan) -> None:
    two = lan.two
    rule = {"type": "bandwidth_limit", "max_kbps": 1000, "max_burst_kbps": 0, "direction": "ingress"}
    two.documents.kinds["policies"]["q"] = {"id": "q", "rules": [rule, rule | {"direction": "egress"}]}
    port = two.documents.kinds["ports"][uid("a")]
    space, tap = two.space("h1"), names.tap(port["id"])

    def limits() -> tuple[bool, bool]:
        """(to the guest, from the guest)"""
        shaped = subprocess.run(["tc", "-n", space, "qdisc", "show", "dev", tap], capture_output=True, check=True)
        policed = ip("netns", "exec", space, "nft", "list", "table", "bridge", "kilonova")
        return b"qdisc tbf" in shaped.stdout, f'iifname "{tap}" limit rate over 125000 bytes/second' in policed

    assert limits() == (False, False)
    port["qos_policy_id"] = "q"
    await two.send()
    await until(lambda: limits() == (True, True))
    port["qos_policy_id"] = None
    await two.send()
    await until(lambda: limits() == (False, False))


def _received(sender: str, receiver: str, address: str, seconds: float) -> tuple[int, float]:
    """Bytes that got through a connection from one guest to the other, and the time that they took."""
    listener = netns.in_namespace(netns.path_of(receiver), lambda: socket.create_server((address, 9100)))
    out = netns.in_namespace(netns.path_of(sender), lambda: socket.create_connection((address, 9100), timeout=PATIENCE))
    taken, _ = listener.accept()
    stop = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                out.sendall(bytes(16384))

    sending = threading.Thread(target=send)
    began = time.monotonic()
    sending.start()
    number = 0
    taken.settimeout(seconds)
    with contextlib.suppress(TimeoutError):
        while time.monotonic() - began < seconds:
            number += len(taken.recv(1 << 20))
    took = time.monotonic() - began
    stop.set()
    for each in (taken, listener, out):
        each.close()
    sending.join()
    return number, took


async def test_traffic_is_limited_both_ways(lan: Lan) -> None:
    two = lan.two
    lan.allow(9100)
    await two.send()
    await until(lambda: lan.wired("a", "b"))
    rate, burst = 800, 160
    rules = {"type": "bandwidth_limit", "max_kbps": rate, "max_burst_kbps": burst}
    two.documents.kinds["policies"]["q"] = {
        "id": "q",
        "rules": [rules | {"direction": d} for d in ("ingress", "egress")],
    }
    free, _ = await asyncio.to_thread(_received, lan.a, lan.b, "10.0.0.6", 2.0)
    two.documents.kinds["ports"][uid("a")]["qos_policy_id"] = "q"
    await two.send()
    tap = names.tap(uid("a"))
    await until(lambda: "tbf" in ip("netns", "exec", two.space("h1"), "tc", "qdisc", "show", "dev", tap))
    for sender, receiver, address in ((lan.a, lan.b, "10.0.0.6"), (lan.b, lan.a, "10.0.0.5")):
        number, took = await asyncio.to_thread(_received, sender, receiver, address, 3.0)
        # The kernel's bucket holds a second's worth besides the burst.
        assert 0 < number * 8 <= 1.1 * (rate * 1000 * (took + 1) + burst * 1000)
        assert number < free / 3


async def test_floating_ip_and_translation(lan: Lan) -> None:
    two, world = lan.two, lan.two.documents
    public = world.flat("public")
    outside = world.subnet("public", public, "172.24.250.0/24", enable_dhcp=False)
    router = world.router("r", external_gateway_info={"enable_snat": True})
    world.router_port(router, lan.network, "h1", (lan.subnet, "10.0.0.1"))
    world.router_port(router, public, "h1", (outside, "172.24.250.20"), gateway=True)
    world.floating("f", "172.24.250.30", router, world.kinds["ports"][uid("a")], "10.0.0.5")
    # Whoever is on the external network.
    world_port = world.port("w", public, "h1", (outside, "172.24.250.1"), port_security_enabled=False)
    stranger = two.guest("h1", world_port, "172.24.250.1")
    for guest in (lan.a, lan.b):
        ip("-n", guest, "route", "add", "default", "via", "10.0.0.1")
    lan.allow(80)
    await two.send()
    await until(lambda: two.reports["h1"].floatingips == {uid("f"): "ACTIVE"})
    with listening(lan.a, 80):
        await until(lambda: reaches(stranger, "172.24.250.30", 80))
        # From a neighbour on another host, by the same name.
        await until(lambda: reaches(lan.b, "172.24.250.30", 80))
    peers = []
    listener = netns.in_namespace(netns.path_of(stranger), lambda: socket.create_server(("0.0.0.0", 9000)))
    listener.settimeout(PATIENCE)
    for guest in (lan.a, lan.b):
        await until(lambda guest=guest: reaches(guest, "172.24.250.1", 9000))  # type: ignore[misc]
        connection, (peer, _) = await asyncio.to_thread(listener.accept)
        connection.close()
        peers.append(peer)
    assert peers == ["172.24.250.30", "172.24.250.20"]
    listener.close()


async def test_extra_routes_lead_on_and_are_set_once(lan: Lan) -> None:
    two, world = lan.two, lan.two.documents
    router = world.router("r", routes=[{"destination": "198.51.100.7/32", "nexthop": "10.0.0.6"}])
    world.router_port(router, lan.network, "h1", (lan.subnet, "10.0.0.1"))
    world.kinds["ports"][uid("b")]["allowed_address_pairs"] = [{"ip_address": "198.51.100.7"}]
    ip("-n", lan.a, "route", "add", "default", "via", "10.0.0.1")
    ip("-n", lan.b, "addr", "add", "198.51.100.7/32", "dev", "lo")
    ip("-n", lan.b, "link", "set", "lo", "up")
    lan.allow(80)
    await two.send()
    with listening(lan.b, 80):
        await until(lambda: reaches(lan.a, "198.51.100.7", 80))
    # Nothing more to do: a plane that heard of its own changes for ever would never rest.
    shell = two.planes["h1"]._applier.shell
    counts = [-1]

    def rests() -> bool:
        counts.append(shell.count)
        time.sleep(0.5)
        return counts[-1] == shell.count

    await until(rests)
    router["routes"] = []
    await two.send()
    space = two.planes["h1"]._applier.spaces.router(router["id"])
    await until(lambda: "198.51.100.7" not in ip("-n", space, "route"))


def _get(space: str, url: str, **headers: str) -> tuple[int, str]:
    """As a guest asks."""

    def ask() -> tuple[int, str]:
        answer = httpx.get(url, headers=headers, timeout=10, trust_env=False)
        return answer.status_code, answer.text

    return netns.in_namespace(netns.path_of(space), ask)


async def test_the_metadata_proxy_says_who_asks_and_believes_no_guest(lan: Lan) -> None:
    two, world = lan.two, lan.two.documents
    # Another network with the same addresses, on the same host.
    other = world.network("other", 8)
    subnet = world.subnet("other", other, "10.0.0.0/24")
    world.dhcp_port(other, "h1", (subnet, "10.0.0.2"))
    twin = world.port("twin", other, "h1", (subnet, "10.0.0.5"), security_groups=[lan.group["id"]], project_id="two")
    guests = {"a": lan.a, "twin": two.guest("h1", twin, "10.0.0.5")}
    for guest in guests.values():
        ip("-n", guest, "route", "add", "169.254.169.254/32", "via", "10.0.0.2")
    await two.send()
    await until(lambda: lan.wired("a", "twin"))
    for name, guest in guests.items():
        port = world.kinds["ports"][uid(name)]
        await until(lambda guest=guest: reaches(guest, "169.254.169.254", 80))  # type: ignore[misc]
        lies = {"X-Instance-ID": "another", "X-Forwarded-For": "192.0.2.7"}
        status, text = await asyncio.to_thread(_get, guest, "http://169.254.169.254/openstack/latest/x?y=1", **lies)
        assert (status, json.loads(text)) == (
            200,
            {
                "path": "/openstack/latest/x?y=1",
                "x-instance-id": port["device_id"],
                "x-tenant-id": port["project_id"],
                "x-forwarded-for": "10.0.0.5",
                "x-instance-id-signature": sign("s3cret", port["device_id"]),
            },
        )
    # An address that no server has.
    ip("-n", two.planes["h1"]._applier.spaces.dhcp(other["id"]), "addr", "add", "10.0.0.77/24", "dev", "dhcp")
    status, _ = await asyncio.to_thread(
        _get, two.planes["h1"]._applier.spaces.dhcp(other["id"]), "http://169.254.169.254/"
    )
    assert status == 404
