"""Power states, both ways: what a guest did by itself is recorded; a guest that should be off is stopped."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from kilonova.bus.messages import PowerReport, ServerQuestion
from kilonova.compute import states
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.hosts import COMPUTE
from kilonova.db.servers import Server
from kilonova.db.tables import instances, services
from kilonova.engine import store
from kilonova.errors import Transient, Unavailable
from kilonova.reconcile.running_deleted import RunningDeleted
from kilonova.runtime import Runtime

log = structlog.get_logger()

OFF = (states.POWER_SHUTDOWN, states.POWER_CRASHED)
UNWANTED = {states.STOPPED: "stop", states.SOFT_DELETED: "soft_delete"}
"""What is done to a guest that runs while its server is in one of these states."""

WITH_GUEST = (states.ACTIVE, states.PAUSED, states.SUSPENDED, states.STOPPED)

CHUNK = 500
GATHERED = 2.0
"""Seconds over which reports that come every so often are collected, to be looked at together."""
INTRODUCTIONS = 25
"""Looks, 0.2 s apart, for the host's own report before its power states are left to the next round."""


class PowerStates:
    def __init__(self, rt: Runtime, running_deleted: RunningDeleted) -> None:
        self.rt = rt
        self.running_deleted = running_deleted
        self._gathered: dict[str, PowerReport] = {}
        self._some = asyncio.Event()

    async def on_report(self, report: PowerReport) -> list[int]:
        """Record differences of servers that nothing is being done to; returns the operations started.

        A report counts when its agent's own is known: after a boot of the host that one decides who is started.
        One of routine is left to `loop`; if that is lost, the next will do.
        """
        if report.routine:
            self._gathered[report.host] = report
            self._some.set()
            return []
        if not await self._introduced(report):
            return []
        return await self.compare([report])

    async def loop(self, wake: Callable[[Sequence[int]], None]) -> None:
        """Look at reports of routine. `wake` is told the operations started."""
        while True:
            await self._some.wait()
            await self.rt.world.sleep(GATHERED)
            try:
                wake(await self.look())
            except Exception as error:
                log.warning("power states not looked at", error=str(error))

    async def look(self) -> list[int]:
        """Compare what was gathered. Returns the operations started."""
        self._some.clear()
        gathered, self._gathered = list(self._gathered.values()), {}
        started: list[int] = []
        for start in range(0, len(gathered), CHUNK):
            part = gathered[start : start + CHUNK]
            incarnations = await self.rt.db.read(functools.partial(_incarnations, reports=part))
            started += await self.compare([each for each in part if incarnations.get(each.host) == each.incarnation])
        return started

    async def compare(self, reports: Sequence[PowerReport]) -> list[int]:
        """Of hosts whose agents are known. Returns the operations started."""
        started: list[int] = []
        deleted: dict[str, list[Server]] = {}
        said = [(report.host, uuid, state) for report in reports for uuid, state in report.states.items()]
        for start in range(0, len(said), CHUNK):
            part = said[start : start + CHUNK]
            found = await self.rt.db.read(functools.partial(servers.get_many, uuids=[uuid for _, uuid, _ in part]))
            known = {server.uuid: server for server in found}
            for host, uuid, state in part:
                server = known.get(uuid)
                if server is not None and server.deleted:
                    deleted.setdefault(host, []).append(server)
                elif server is None or server.host != host:
                    log.warning("host has a guest that it should not have", host=host, server=uuid)
                elif server.operation_id is None and _is_news(server, state):
                    operation_id = await self._differs(server, state)
                    if operation_id is not None:
                        started.append(operation_id)
        if complete := {report.host: report for report in reports if report.complete}:
            for server in await self.rt.db.read(functools.partial(_not_named, reports=complete)):
                await self._no_guest(server)
        for host, gone in deleted.items():
            await self.running_deleted.found(host, gone)
        return started

    async def _no_guest(self, server: Server) -> None:
        """Told and shown, and nothing else: what became of its disks only an administrator can find out."""
        if await self._ask(server, server.power_state) != states.POWER_NOSTATE:
            return
        log.warning("server has no guest on its host", host=server.host, server=server.uuid)
        if server.power_state != states.POWER_NOSTATE:
            await self._differs(server, states.POWER_NOSTATE)

    async def _differs(self, server: Server, reported: int) -> int | None:
        power_state = await self._ask(server, reported)
        if not _is_news(server, power_state):
            return None
        values: dict[str, object] = {"power_state": power_state, "updated_at": self.rt.world.now()}
        stopped_itself = power_state in OFF and server.vm_state in (states.ACTIVE, states.PAUSED, states.SUSPENDED)
        kind = _unwanted(server, power_state)
        if stopped_itself:
            values |= {"vm_state": states.STOPPED}
        log.info(
            "guest changed by itself",
            server=server.uuid,
            vm_state=server.vm_state,
            was=server.power_state,
            now=power_state,
        )

        async def work(tx: Tx) -> int | None:
            operation_id = None
            if kind is not None:
                operation_id = await self._begin(tx, server, kind)
                values.update(operation_id=operation_id, task_state=states.POWERING_OFF)
            changed = await servers.update(
                tx,
                server.uuid,
                instances.c.operation_id.is_(None),
                instances.c.generation == server.generation,
                generation=instances.c.generation + 1,
                **values,
            )
            if not changed:
                raise _ChangedMeanwhile
            return operation_id

        try:
            return await self.rt.db.write(work)
        except _ChangedMeanwhile:
            return None

    async def _introduced(self, report: PowerReport) -> bool:
        """Whether the agent's report of its host has been taken; the two may overtake each other by a moment."""
        for _ in range(INTRODUCTIONS):
            known = await self.rt.db.read(functools.partial(_incarnations, reports=[report]))
            if known.get(report.host) == report.incarnation:
                return True
            await self.rt.world.sleep(0.2)
        log.info("power states of an unknown agent ignored", host=report.host)
        return False

    async def _ask(self, server: Server, reported: int) -> int:
        """The state now: a report may be late, from before the last operation."""
        question = ServerQuestion(server_uuid=server.uuid, what="power_state")
        try:
            answer = await self.rt.bus.ask(f"agent.{server.host}", question, 10.0)
        except (Unavailable, Transient):
            return server.power_state
        return int(str(answer.data["power_state"])) if answer.error is None else reported

    async def _begin(self, tx: Tx, server: Server, kind: str) -> int:
        return await store.insert(
            tx,
            kind=kind,
            action="stop",
            server_uuid=server.uuid,
            project_id=server.project_id,
            user_id=server.user_id,
            request_id=f"req-{self.rt.world.uuid()}",
            now=self.rt.world.now(),
        )


_i = instances.c
_HOSTS: sa.BindParameter[Any] = sa.bindparam("hosts", expanding=True)
_INCARNATIONS = sa.select(services.c.host, services.c.incarnation).where(
    services.c.host.in_(_HOSTS), services.c.binary == COMPUTE
)
_RESTING = sa.select(_i.host, _i.uuid).where(
    _i.host.in_(_HOSTS), _i.deleted == 0, _i.operation_id.is_(None), _i.vm_state.in_(WITH_GUEST)
)


async def _incarnations(tx: Tx, reports: Sequence[PowerReport]) -> dict[str, str]:
    """Of the hosts' agents, as they have introduced themselves."""
    rows = await tx.execute(_INCARNATIONS, {"hosts": [report.host for report in reports]})
    return {row.host: row.incarnation for row in rows}


async def _not_named(tx: Tx, reports: Mapping[str, PowerReport]) -> list[Server]:
    """Servers that nothing is being done to, which should have a guest on a host and are not in its report."""
    found = await tx.execute(_RESTING, {"hosts": list(reports)})
    missing = [row.uuid for row in found if row.uuid not in reports[row.host].states]
    return [
        server
        for start in range(0, len(missing), CHUNK)
        for server in await servers.get_many(tx, missing[start : start + CHUNK])
    ]


def _is_news(server: Server, power_state: int) -> bool:
    return power_state != server.power_state or _unwanted(server, power_state) is not None


def _unwanted(server: Server, power_state: int) -> str | None:
    """The operation that stops the guest, when it runs and should not."""
    return UNWANTED.get(server.vm_state) if power_state not in (states.POWER_NOSTATE, *OFF) else None


class _ChangedMeanwhile(Exception):
    """Roll back: somebody has begun something with the server."""
