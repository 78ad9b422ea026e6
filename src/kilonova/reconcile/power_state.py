"""Power states, both ways: what a guest did by itself is recorded; a guest that should be off is stopped."""

from __future__ import annotations

import functools

import sqlalchemy as sa
import structlog

from kilonova.bus.messages import PowerReport, ServerQuestion
from kilonova.compute import states
from kilonova.db import servers
from kilonova.db.engine import Tx
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
INTRODUCTIONS = 25
"""Looks, 0.2 s apart, for the host's own report before its power states are left to the next round."""


class PowerStates:
    def __init__(self, rt: Runtime, running_deleted: RunningDeleted) -> None:
        self.rt = rt
        self.running_deleted = running_deleted

    async def on_report(self, report: PowerReport) -> list[int]:
        """Record differences of servers that nothing is being done to; returns the operations started.

        A report counts when its agent's own is known: after a boot of the host that one decides who is started.
        """
        if not await self._introduced(report):
            return []
        started: list[int] = []
        deleted: list[Server] = []
        uuids = list(report.states)
        for start in range(0, len(uuids), CHUNK):
            part = uuids[start : start + CHUNK]
            found = await self.rt.db.read(functools.partial(servers.get_many, uuids=part))
            known = {server.uuid: server for server in found}
            for uuid in part:
                server = known.get(uuid)
                if server is not None and server.deleted:
                    deleted.append(server)
                elif server is None or server.host != report.host:
                    log.warning("host has a guest that it should not have", host=report.host, server=uuid)
                elif server.operation_id is None and _is_news(server, report.states[uuid]):
                    operation_id = await self._differs(server, report.states[uuid])
                    if operation_id is not None:
                        started.append(operation_id)
        if report.complete:
            for server in await self.rt.db.read(functools.partial(_not_named, report=report)):
                await self._no_guest(server)
        if deleted:
            await self.running_deleted.found(report.host, deleted)
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

        async def known(tx: Tx) -> bool:
            query = sa.select(services.c.incarnation).where(
                services.c.host == report.host, services.c.binary == "nova-compute"
            )
            row = (await tx.execute(query)).first()
            return row is not None and row.incarnation == report.incarnation

        for _ in range(INTRODUCTIONS):
            if await self.rt.db.read(known):
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


async def _not_named(tx: Tx, report: PowerReport) -> list[Server]:
    """Servers that nothing is being done to, which should have a guest on the host and are not in its report."""
    c = instances.c
    resting = (c.host == report.host, c.deleted == 0, c.operation_id.is_(None), c.vm_state.in_(WITH_GUEST))
    found = [row[0] for row in await tx.execute(sa.select(c.uuid).where(*resting))]
    missing = [uuid for uuid in found if uuid not in report.states]
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
