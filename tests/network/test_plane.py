"""Planes on this kernel: what is allowed passes, and what is broken is repaired."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from kilonova import netns
from kilonova.allinone import libvirtd
from kilonova.network.plane import names
from tests.support.neutron_documents import uid
from tests.support.planes import PATIENCE, Lan, TwoHosts, ip, listening, reaches, until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="network namespaces need root"),
]


async def test_two_hosts_over_vxlan_and_only_what_is_allowed(lan: Lan) -> None:
    lan.allow(80)
    await lan.two.send()
    with listening(lan.b, 80), listening(lan.b, 81):
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        assert not await asyncio.to_thread(reaches, lan.a, "10.0.0.6", 81)
        lan.allow(81, remote_ip_prefix="10.0.0.5/32")
        await lan.two.send()
        await until(lambda: reaches(lan.a, "10.0.0.6", 81))
        lan.group["security_group_rules"][-1]["remote_ip_prefix"] = "10.0.0.99/32"
        await lan.two.send()
        await until(lambda: not reaches(lan.a, "10.0.0.6", 81))
        # The DHCP server's address is on both hosts, and each keeps to its own.
        for host, guest in (("h1", lan.a), ("h2", lan.b)):
            space = lan.two.planes[host]._applier.spaces.dhcp(lan.network["id"])
            assert "10.0.0.2/24" in ip("-n", space, "-o", "addr")
            with listening(space, 8080):
                await until(lambda guest=guest: reaches(guest, "10.0.0.2", 8080))  # type: ignore[misc]


async def test_what_somebody_breaks_comes_back(lan: Lan) -> None:
    lan.allow(80)
    await lan.two.send()
    space, bridge = lan.two.space("h1"), names.bridge(lan.network["id"])
    with listening(lan.b, 80):
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        ip("-n", space, "link", "del", "vx7")
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        ip("-n", space, "link", "del", bridge)
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        ip("-n", space, "link", "set", names.tap(uid("a")), "nomaster")
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        ip("netns", "exec", lan.two.space("h2"), "nft", "flush", "ruleset")
        lan.group["security_group_rules"].pop()
        await lan.two.send()
        await until(lambda: not reaches(lan.a, "10.0.0.6", 80))


async def test_a_spoofed_address_passes_nowhere(lan: Lan) -> None:
    lan.allow(80)
    await lan.two.send()
    with listening(lan.b, 80):
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        ip("-n", lan.a, "link", "set", "eth0", "address", "fa:16:3e:de:ad:01")
        assert not await asyncio.to_thread(reaches, lan.a, "10.0.0.6", 80)
        # A port without security may send as whom it likes.
        lan.two.documents.kinds["ports"][uid("a")]["port_security_enabled"] = False
        await lan.two.send()
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))


async def test_an_address_that_a_port_is_allowed_besides_its_own_passes(lan: Lan) -> None:
    lan.allow(80)
    await lan.two.send()
    ip("-n", lan.a, "addr", "add", "10.0.0.99/24", "dev", "eth0")
    port = lan.two.documents.kinds["ports"][uid("a")]
    with listening(lan.b, 80):
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        assert not await asyncio.to_thread(reaches, lan.a, "10.0.0.6", 80, source="10.0.0.99")
        port["allowed_address_pairs"] = [{"mac_address": port["mac_address"], "ip_address": "10.0.0.96/29"}]
        await lan.two.send()
        await until(lambda: reaches(lan.a, "10.0.0.6", 80, source="10.0.0.99"))


async def test_a_plane_that_starts_again_finds_everything_and_what_nobody_wants_goes(lan: Lan) -> None:
    two = lan.two
    space = two.planes["h1"]._applier.spaces.dhcp(lan.network["id"])
    before = _dnsmasq(two, space)
    await two.planes["h1"].stop()
    two.reports.clear()
    await two.plane("h1", 1)
    await two.send()
    await until(lambda: lan.wired("a"))
    assert _dnsmasq(two, space) == before
    del two.documents.kinds["ports"][uid("a")]
    ip("-n", two.space("h1"), "link", "del", names.tap(uid("a")))
    await two.send()
    await until(lambda: not netns.exists(space))
    await until(lambda: names.BRIDGE not in ip("-n", two.space("h1"), "-o", "link"))
    assert not Path(f"/proc/{before}").exists() or "dnsmasq" not in Path(f"/proc/{before}/cmdline").read_text()


def _dnsmasq(two: TwoHosts, space: str) -> int:
    (daemon,) = two.planes["h1"]._applier.inner[space].daemons
    pid = daemon.pid()
    assert pid is not None
    return pid


async def test_kernel_settings_are_looked_at_too(lan: Lan) -> None:
    """As after a kill between the making of a namespace and its settings."""
    two, world = lan.two, lan.two.documents
    router = world.router("r")
    other = world.network("other", 8)
    subnet = world.subnet("other", other, "10.0.1.0/24")
    c = world.port("c", other, "h1", (subnet, "10.0.1.5"), security_groups=[lan.group["id"]])
    world.router_port(router, lan.network, "h1", (lan.subnet, "10.0.0.1"))
    world.router_port(router, other, "h1", (subnet, "10.0.1.1"))
    netns.ensure(two.planes["h1"]._applier.spaces.router(router["id"]))
    guest = two.guest("h1", c, "10.0.1.5")
    for name, gateway in ((lan.a, "10.0.0.1"), (guest, "10.0.1.1")):
        ip("-n", name, "route", "add", "default", "via", gateway)
    lan.allow(80)
    await two.send()
    with listening(guest, 80):
        await until(lambda: reaches(lan.a, "10.0.1.5", 80))
        await two.planes["h1"].stop()
        bridged = "net.bridge.bridge-nf-call-iptables=0"
        ip("netns", "exec", two.space("h1"), "sysctl", "-q", "-w", bridged)
        two.period = 0.5
        await two.plane("h1", 1)
        await two.send()
        lan.group["security_group_rules"].pop()
        await two.send()
        # Rules see bridged packets again, and again after somebody has changed that.
        await until(lambda: not reaches(lan.a, "10.0.1.5", 80))
        ip("netns", "exec", two.space("h1"), "sysctl", "-q", "-w", bridged)
        await until(lambda: "= 1" in ip("netns", "exec", two.space("h1"), "sysctl", bridged.partition("=")[0]))


async def test_a_group_without_state_lets_no_answer_back(lan: Lan) -> None:
    lan.allow(80)
    await lan.two.send()
    with listening(lan.b, 80):
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))
        lan.group["stateful"] = False
        await lan.two.send()
        await until(lambda: not reaches(lan.a, "10.0.0.6", 80))
        # The answers come from port 80 to a port of the caller's choice.
        answers = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
        lan.group["security_group_rules"].append(answers | {"port_range_min": 1024, "port_range_max": 65535})
        await lan.two.send()
        await until(lambda: reaches(lan.a, "10.0.0.6", 80))


async def test_a_killed_dnsmasq_is_started_again(lan: Lan) -> None:
    two = lan.two
    space = two.planes["h1"]._applier.spaces.dhcp(lan.network["id"])
    before = _dnsmasq(two, space)
    os.kill(before, signal.SIGKILL)
    (daemon,) = two.planes["h1"]._applier.inner[space].daemons
    await until(lambda: daemon.pid() not in (None, before))


async def test_what_a_plane_was_doing_has_ended_when_it_has_stopped(lan: Lan) -> None:
    plane = lan.two.planes["h1"]
    began, go_on = threading.Event(), threading.Event()
    apply, done = plane._applier.apply, []

    def slowly(*words: Any) -> Any:
        began.set()
        assert go_on.wait(PATIENCE)
        done.append(outcome := apply(*words))
        return outcome

    plane._applier.apply = slowly  # type: ignore[method-assign]
    lan.allow(80)
    await lan.two.send()
    assert await asyncio.to_thread(began.wait, PATIENCE)
    stopping = asyncio.create_task(plane.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    go_on.set()
    await stopping
    assert done
