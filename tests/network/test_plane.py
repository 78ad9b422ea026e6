"""Planes on this kernel: two hosts as namespaces with a wire between them, guests as namespaces with a tap."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from kilonova import netns
from kilonova.allinone import libvirtd
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, Message
from kilonova.metadata.signing import sign
from kilonova.network.desired import plans
from kilonova.network.messages import ROLE, PlanePlan, PlaneReport, plane_address
from kilonova.network.plane import names
from kilonova.network.plane.apply import remove_everything
from kilonova.network.plane.links import Site
from kilonova.network.plane.metadata_proxy import MetadataTarget
from kilonova.network.plane.plane import Plane
from kilonova.network.role import PlaneHost
from kilonova.world import World
from tests.support.neutron_documents import Documents, Json, uid

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="network namespaces need root"),
]

PATIENCE = 60.0


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


@dataclass(kw_only=True)
class TwoHosts:
    """Two hosts and a wire. `send` computes and hands out plans as the role does; `reports`: the last of each."""

    prefix: str
    directory: Path
    bus: MemoryBus
    documents: Documents = field(default_factory=Documents)
    planes: dict[str, Plane] = field(default_factory=dict)
    reports: dict[str, PlaneReport] = field(default_factory=dict)
    guests: list[str] = field(default_factory=list)
    metadata: MetadataTarget | None = None

    def space(self, host: str) -> str:
        return f"{self.prefix}{host}"

    async def start(self) -> None:
        wire = self.space("wire")
        netns.ensure(wire)
        ip("-n", wire, "link", "add", "wire", "type", "bridge")
        ip("-n", wire, "link", "set", "wire", "up")
        await self.bus.listen(ROLE, self._take)
        for number, host in enumerate(("h1", "h2"), start=1):
            space = self.space(host)
            netns.ensure(space)
            ip("-n", wire, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("-n", wire, "link", "set", host, "master", "wire", "up")
            ip("-n", space, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            await self.plane(host, number)

    async def plane(self, host: str, number: int) -> None:
        self.planes[host] = Plane(
            self.bus, World(), host=host, space=self.space(host), directory=self.directory / host,
            site=Site(tunnel_ip=f"192.0.2.{number}"), metadata=self.metadata,
        )  # fmt: skip
        await self.planes[host].start()

    async def _take(self, message: Message) -> Answer | None:
        if isinstance(message, PlaneReport):
            self.reports[message.host] = message
        return None

    async def send(self) -> None:
        hosts = {f"h{n}": PlaneHost(host=f"h{n}", incarnation="1", facts=f"192.0.2.{n}") for n in (1, 2)}
        for host, plan in plans(self.documents.kinds, hosts).items():
            content = msgspec.Raw(msgspec.msgpack.encode(plan))
            await self.bus.send(plane_address(host), PlanePlan(host=host, digest=secrets.token_hex(4), content=content))

    def guest(self, host: str, port: Json, address: str) -> str:
        """A namespace that is plugged like a guest; its name."""
        name = self.space(port["name"])
        netns.ensure(name)
        self.guests.append(name)
        tap = names.tap(port["id"])
        ip("-n", self.space(host), "link", "add", tap, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", name, "link", "set", "eth0", "address", port["mac_address"], "mtu", "1450", "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        return name

    async def close(self) -> None:
        for host, plane in self.planes.items():
            await plane.stop()
            remove_everything(plane._applier.spaces, self.directory / host)
        for name in [*self.guests, self.space("wire")]:
            netns.remove(name)
        await self.bus.close()


class Service:
    """Where the planes' proxies ask: answers with what they said of who asks."""

    def __init__(self, server: asyncio.Server) -> None:
        self.server = server
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self.server.close()
        await self.server.wait_closed()


async def _metadata_service() -> Service:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                said = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                told = {name: value for name, value in said.items() if name.startswith("x-")} | {
                    "path": head[0].split()[1]
                }
                body = json.dumps(told).encode()
                kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                writer.write(kind % len(body) + body)
                await writer.drain()
        writer.close()

    return Service(await asyncio.start_server(handle, "127.0.0.1", 0))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[TwoHosts]:
    bus = MemoryBus()
    await bus.start()
    service = await _metadata_service()
    made = TwoHosts(
        prefix=f"kt{secrets.token_hex(3)}",
        directory=tmp_path,
        bus=bus,
        metadata=MetadataTarget(url=service.url, secret="s3cret"),
    )
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await service.close()


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(check):
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def listening(space: str, port: int) -> Any:
    listener = netns.in_namespace(netns.path_of(space), lambda: socket.create_server(("0.0.0.0", port)))
    with listener:
        yield


def reaches(space: str, address: str, port: int, timeout: float = 0.7) -> bool:
    def attempt() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=timeout):
            return True
        return False

    return netns.in_namespace(netns.path_of(space), attempt)


@dataclass
class Lan:
    """Guests `a` (10.0.0.5, on h1) and `b` (10.0.0.6, on h2) of one network; all may leave, nothing may enter."""

    two: TwoHosts
    network: Json
    subnet: Json
    group: Json
    a: str
    b: str

    def allow(self, port: int, **more: Any) -> None:
        rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"} | more
        self.group["security_group_rules"].append(rule | {"port_range_min": port, "port_range_max": port})

    def wired(self, *ports: str) -> bool:
        reported = {port for report in self.two.reports.values() for port in report.ports}
        return {self.two.documents.kinds["ports"][uid(name)]["id"] for name in ports} <= reported


@pytest.fixture
async def lan(two: TwoHosts) -> Lan:
    world = two.documents
    network = world.network("lan", 7)
    subnet = world.subnet("lan", network, "10.0.0.0/24")
    group = world.group("g", {"direction": "egress"})
    ports = {
        name: world.port(name, network, host, (subnet, address), security_groups=[group["id"]])
        for name, host, address in (("a", "h1", "10.0.0.5"), ("b", "h2", "10.0.0.6"))
    }
    world.dhcp_port(network, "h1", (subnet, "10.0.0.2"))
    await two.send()
    found = Lan(
        two, network, subnet, group, two.guest("h1", ports["a"], "10.0.0.5"), two.guest("h2", ports["b"], "10.0.0.6")
    )
    await until(lambda: found.wired("a", "b"))
    return found


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


async def test_a_killed_dnsmasq_is_started_again(lan: Lan) -> None:
    two = lan.two
    space = two.planes["h1"]._applier.spaces.dhcp(lan.network["id"])
    before = _dnsmasq(two, space)
    os.kill(before, signal.SIGKILL)
    (daemon,) = two.planes["h1"]._applier.inner[space].daemons
    await until(lambda: daemon.pid() not in (None, before))


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
