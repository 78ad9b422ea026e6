"""Two hosts as namespaces with a wire between them, guests as namespaces with a tap: for tests of planes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kilonova import netns
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, Message
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

PATIENCE = 60.0


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


HOSTS = {"h1": 1, "h2": 2}
"""Their numbers, which are the last of their addresses in 192.0.2.0/24."""


def make_hosts(prefix: str) -> None:
    """Namespaces PREFIXh1 and PREFIXh2, with a wire (PREFIXwire) between them."""
    wire = f"{prefix}wire"
    netns.ensure(wire)
    ip("-n", wire, "link", "add", "wire", "type", "bridge")
    ip("-n", wire, "link", "set", "wire", "up")
    for host, number in HOSTS.items():
        space = f"{prefix}{host}"
        netns.ensure(space)
        ip("-n", wire, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("-n", wire, "link", "set", host, "master", "wire", "up")
        ip("-n", space, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")


def plug(space: str, guest: str, port: Json, address: str) -> None:
    """A namespace `guest` whose device is the port's tap in the host's namespace `space`."""
    netns.ensure(guest)
    tap = names.tap(port["id"])
    ip("-n", space, "link", "add", tap, "type", "veth", "peer", "name", "eth0", "netns", guest)
    ip("-n", guest, "link", "set", "eth0", "address", port["mac_address"], "mtu", "1450", "up")
    ip("-n", guest, "addr", "add", f"{address}/24", "dev", "eth0")


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
    told: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """What the metadata service answers, by server and path, where that is not who asks."""
    period: float = 60.0
    shared: bool = False
    """Whether others have devices in the hosts' namespaces too."""

    def space(self, host: str) -> str:
        return f"{self.prefix}{host}"

    async def start(self) -> None:
        await self.bus.listen(ROLE, self._take)
        make_hosts(self.prefix)
        for host, number in HOSTS.items():
            await self.plane(host, number)

    async def plane(self, host: str, number: int) -> None:
        self.planes[host] = Plane(
            self.bus, World(), host=host, space=self.space(host), directory=self.directory / host,
            site=Site(tunnel_ip=f"192.0.2.{number}", shared=self.shared), metadata=self.metadata, period=self.period,
        )  # fmt: skip
        await self.planes[host].start()

    async def _take(self, message: Message) -> Answer | None:
        if isinstance(message, PlaneReport):
            self.reports[message.host] = message
        return None

    async def send(self) -> None:
        hosts = {host: PlaneHost(host=host, incarnation="1", facts=f"192.0.2.{n}") for host, n in HOSTS.items()}
        for host, plan in plans(self.documents.kinds, hosts).items():
            content = msgspec.Raw(msgspec.msgpack.encode(plan))
            await self.bus.send(plane_address(host), PlanePlan(host=host, digest=secrets.token_hex(4), content=content))

    def guest(self, host: str, port: Json, address: str) -> str:
        """A namespace that is plugged like a guest; its name."""
        name = self.space(port["name"])
        self.guests.append(name)
        plug(self.space(host), name, port, address)
        return name

    async def close(self) -> None:
        for host, plane in self.planes.items():
            await plane.stop()
            remove_everything(plane._applier.spaces, self.directory / host)
        for name in [*self.guests, self.space("wire")]:
            netns.remove(name)
        await self.bus.close()


class Service:
    """Where the planes' proxies ask: answers with what they said of who asks, unless a document is there for it."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], bytes] = {}
        """By server and path."""
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """No connection is left to whatever loop comes next: those who ask keep theirs open."""
        self._server.close()
        await self._server.wait_closed()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                    writer.write(self._said(head))
                    await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _said(self, head: list[str]) -> bytes:
        said = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        told = {name: value for name, value in said.items() if name.startswith("x-")} | {"path": head[0].split()[1]}
        body = self.documents.get((told.get("x-instance-id", ""), told["path"])) or json.dumps(told).encode()
        kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        return kind % len(body) + body


async def metadata_service() -> Service:
    service = Service()
    await service.start()
    return service


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(check):
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def listening(space: str, port: int) -> Any:
    listener = netns.in_namespace(netns.path_of(space), lambda: socket.create_server(("0.0.0.0", port)))
    with listener:
        yield


def reaches(space: str, address: str, port: int, timeout: float = 0.7, source: str = "") -> bool:
    """`source`: the address that it comes from."""

    def attempt() -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), timeout=timeout, source_address=(source, 0)),
        ):
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
