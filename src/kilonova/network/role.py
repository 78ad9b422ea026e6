"""The role `network`: reads Neutron's state, computes what each host's plane should have, sends it, reports up.

Two tasks: one reads and sends, one reports, so that a long read keeps no port from becoming ACTIVE. Neither remembers
anything that could not be read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from kilonova.errors import Conflict, Invalid, KilonovaError, NotFound
from kilonova.network import hints, upkeep
from kilonova.network.mirror import Mirror
from kilonova.network.rest import NeutronRest
from kilonova.network.statuses import ACTIVE, PlaneState, differences
from kilonova.network.upkeep import Documents
from kilonova.world import World

log = structlog.get_logger(__name__)

FULL_READ = 60.0
"""Seconds between two reads of everything, which find what a lost hint would have told."""

SHARE = 20
"""A full read that takes T seconds is repeated after SHARE * T at the soonest: Neutron has other work."""

GATHER = 0.005
"""Seconds for which hints are gathered before what they name is read."""

PAUSES = (0.2, 10.0)
"""Seconds of waiting after a failure: the first, and the longest."""

SILENCE = 60.0
"""Seconds after its last greeting at which a plane counts as gone: its routers move."""

BATCH = 25
"""Statuses in one report: each takes Neutron 10-50 ms, and others wait meanwhile."""

CALLS = 25
"""Ports made or bound between two looks at what else has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneHost:
    """A host as its plane introduces itself."""

    host: str
    incarnation: str
    """Changes at each start: a new one has nothing yet."""
    facts: Any = None
    """What `compute` needs to know of it (tunnel address, ...)."""


Compute = Callable[[Documents, Mapping[str, PlaneHost]], Mapping[str, Any]]
"""From Neutron's state and the living hosts to each host's plan. Pure; called in a thread."""

Send = Callable[[str, Any], Awaitable[None]]
"""Hand a plan to a host's plane. May lose it: a plane that lacks one says so in its next greeting."""


@dataclass(slots=True)
class _Known:
    host: PlaneHost
    seen: float
    state: PlaneState | None = None


class NetworkRole:
    """`greeted` and `reported` are called for what the planes say; everything else happens by itself."""

    def __init__(
        self,
        rest: NeutronRest,
        world: World,
        *,
        compute: Compute,
        send: Send,
        hints_address: str,
        full_read: float = FULL_READ,
    ) -> None:
        self.mirror = Mirror(rest)
        self._rest = rest
        self._world = world
        self._compute = compute
        self._send = send
        self._hints_address = hints_address
        self._full_read = full_read
        self._listener: socket.socket | None = None
        self._hints: list[hints.Hint] = []
        self._planes: dict[str, _Known] = {}
        self._sent: dict[str, tuple[str, Any]] = {}
        self._computed: tuple[int, dict[str, PlaneHost]] | None = None
        self._told: set[tuple[str, str]] = set()
        self._full_due = 0.0
        self._complete = False
        self._ever_read = False
        self._news, self._report = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: str | None = "Neutron has not been read yet"

    async def start(self) -> None:
        """Raises OSError when another role listens for this Neutron's hints on this machine."""
        if self._hints_address:
            self._listener = hints.listen(self._hints_address)
            asyncio.get_running_loop().add_reader(self._listener, self._take_hints)
        self._news.set()
        self._tasks = [
            asyncio.create_task(self._for_ever(self._news, self._read_and_send, self._full_read), name="network: read"),
            asyncio.create_task(self._for_ever(self._report, self._report_up, self._full_read), name="network: report"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    def ready(self) -> str | None:
        """None when Neutron has been read and at least one plane has answered, else what is missing."""
        if self._failure is not None:
            return self._failure
        return None if any(known.state is not None for known in self._planes.values()) else "no plane has reported yet"

    def poke(self, kind: str, *ids: str) -> None:
        """As a hint."""
        self._hints.append(hints.Hint(kind, ids))
        self._news.set()

    def greeted(self, plane: PlaneHost, *, has: bool = True) -> None:
        """A plane lives. With `has` False it lacks the last plan that was sent."""
        known = self._planes.get(plane.host)
        if known is None or known.host != plane:
            self._planes[plane.host] = _Known(plane, self._world.monotonic())
            self._news.set()
        else:
            known.seen = self._world.monotonic()
        if not has and self._sent.pop(plane.host, None) is not None:
            self._computed = None
            self._news.set()

    def reported(self, host: str, incarnation: str, state: PlaneState) -> None:
        """What a plane has now. One that has not greeted is not believed."""
        known = self._planes.get(host)
        if known is None or known.host.incarnation != incarnation:
            return
        known.seen = self._world.monotonic()
        if known.state != state:
            known.state = state
            self._report.set()

    def _take_hints(self) -> None:
        assert self._listener is not None
        while True:
            try:
                hint = hints.decode(self._listener.recv(hints.LARGEST))
            except BlockingIOError:
                break
            except OSError as error:
                log.warning("network.hints_failed", error=str(error))
                break
            if hint is not None:
                self._hints.append(hint)
        self._news.set()

    async def _for_ever(self, event: asyncio.Event, turn: Callable[[], Awaitable[None]], period: float) -> None:
        pause = PAUSES[0]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await event.wait()
            event.clear()
            try:
                await turn()
                pause = PAUSES[0]
                continue
            except KilonovaError as error:
                self._failure = error.message
                log.warning("network.turn_failed", error=error.message, details=error.details, pause=pause)
            except Exception:
                self._failure = "the role network failed; its log says why"
                log.exception("network.turn_failed")
            event.set()
            await self._world.sleep(pause)
            pause = min(pause * 2, PAUSES[1])

    async def _read_and_send(self) -> None:
        await self._world.sleep(GATHER)
        await self._read()
        self._failure = None
        await self._send_plans()
        if await self._keep_up():
            await self._send_plans()
        self._report.set()

    async def _read(self) -> None:
        gathered, self._hints = self._hints, []
        began = self._world.monotonic()
        if self._complete and began < self._full_due:
            try:
                await self.mirror.read(gathered)
            except KilonovaError:
                self._complete = False  # what was hinted at is not known any more
                raise
            return
        await self.mirror.read_everything()
        took = self._world.monotonic() - began
        self._complete = self._ever_read = True
        self._full_due = began + took + max(self._full_read, SHARE * took)

    def _living(self) -> dict[str, PlaneHost]:
        since = self._world.monotonic() - SILENCE
        return {host: known.host for host, known in sorted(self._planes.items()) if known.seen >= since}

    async def _send_plans(self) -> None:
        hosts, number = self._living(), self.mirror.number
        if self._computed == (number, hosts):
            return
        snapshot = {kind: dict(found) for kind, found in self.mirror.documents.items()}
        plans = await asyncio.to_thread(self._compute, snapshot, hosts)
        for host, plan in plans.items():
            sent = (hosts[host].incarnation, plan)
            if self._sent.get(host) != sent:
                await self._send(host, plan)
                self._sent[host] = sent
        self._computed = (number, hosts)

    async def _keep_up(self) -> bool:
        """Make the ports that are missing, bind those that are bound elsewhere; whether anything was done."""
        calls = upkeep.missing(self.mirror.documents, self._living())
        for call in calls[:CALLS]:
            try:
                await self._do(call)
            except (Conflict, Invalid, NotFound) as error:
                # The pool is empty, or somebody deletes it just now: the next read tells.
                log.warning("network.port_refused", call=str(call), error=error.details)
        if len(calls) > CALLS:
            self._news.set()
        return bool(calls)

    async def _do(self, call: upkeep.Call) -> None:
        rest = self._rest
        match call:
            case upkeep.MakeDhcpPort():
                port = await rest.create_port(
                    network_id=call.network_id,
                    project_id=call.project_id,
                    device_owner=upkeep.DHCP,
                    device_id=upkeep.dhcp_device_id(call.network_id),
                    name="",
                    admin_state_up=True,
                    fixed_ips=[{"subnet_id": each} for each in call.subnets],
                    **{"binding:host_id": call.host},
                )
                self.mirror.put("ports", port)
            case upkeep.MoveDhcpPort():
                fixed = [
                    {"subnet_id": subnet} | ({"ip_address": address} if address else {})
                    for subnet, address in call.fixed_ips
                ]
                self.mirror.put("ports", await rest.update_port(call.port_id, fixed_ips=fixed))
            case upkeep.RemovePort():
                await rest.delete_port(call.port_id)
                self.mirror.forget([call.port_id])
            case upkeep.BindPort():
                self.mirror.put("ports", await rest.update_port(call.port_id, **{"binding:host_id": call.host}))

    async def _report_up(self) -> None:
        """Tell Neutron what differs from its own view."""
        if not self._ever_read:
            return  # what Neutron holds is not known; the read that is due asks again
        living = self._living()
        planes = {host: known.state for host, known in self._planes.items() if known.state and host in living}
        self._told &= {(port_id, host) for host, plane in planes.items() for port_id in plane.ports}
        found = differences(self.mirror.documents, planes, self._told)
        if not found:
            return
        part = found.first(BATCH)
        unknown = await self._rest.report(ports=part.ports, routers=part.routers, floatingips=part.floatingips)
        self.mirror.forget(unknown)
        documents = self.mirror.documents
        for told in part.ports:
            port = documents["ports"].get(told["id"])
            if port is not None and port.get("binding:host_id") == told["host"]:
                port["status"] = told["status"]
            if port is not None and told["status"] == ACTIVE:
                # Where it was bound once and is still wired, it is not arriving.
                self._told.add((told["id"], told["host"]))
        for kind, statuses in (("routers", part.routers), ("floatingips", part.floatingips)):
            for each, status in statuses.items():
                if each in documents[kind]:
                    documents[kind][each]["status"] = status
        self._report.set()
