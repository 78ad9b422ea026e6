"""The audit of the chaos run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Set
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from kilonova.agent.sim.state import SimState
from kilonova.compute import states
from kilonova.db import servers as server_rows
from kilonova.db.engine import Database
from kilonova.db.servers import Server
from kilonova.db.tables import instances, operations
from kilonova.testing.network import FakeNetworking
from tests.support.cluster import Cluster
from tests.support.stand_ins import networking_file
from tests.workflows.harness.audit import GONE, audit

ATTEMPTS = 3
"""A boot tries so many hosts (`[scheduler] max_attempts`)."""


class Scene:
    """The cluster as the audit of the fault harness looks at one."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.db = Database(cluster.database, pool_size=2)
        self.network = FakeNetworking()
        self.hosts: dict[str, Any] = {}

    async def all_servers(self) -> list[Server]:
        async def work(tx: Any) -> list[Server]:
            return [server_rows.from_row(row) for row in await tx.execute(sa.select(instances))]

        return await self.db.read(work)

    async def look(self) -> None:
        """What the simulated hypervisors and Networking hold, by their files."""
        if self.cluster.networking:
            text = networking_file(self.cluster.others.more).read_text()
            self.network.collections = json.loads(text)
        for member in self.cluster.of("compute"):
            state = SimState(self.cluster.directory / member.name / "agent/sim.sqlite")
            await state.start()
            for number in range(1, self.cluster.hosts + 1):
                name = f"{member.name}-{number:03d}"
                held = await state.host(name)
                self.hosts[name] = SimpleNamespace(driver=SimpleNamespace(_host=held, left=held.left))
            await state.close()

    async def wrong(self, acknowledged: Set[str] = frozenset(), deleted: Set[str] = frozenset()) -> list[str]:
        """What the audit finds; `acknowledged`, `deleted`: what users were told."""
        await self.look()
        found = await audit(self, {states.ACTIVE, states.ERROR, GONE}, guest_may_differ=True)  # type: ignore[arg-type]
        rows = {row.uuid: row for row in await self.all_servers()}
        found += [f"acknowledged server {uuid} is lost" for uuid in acknowledged - rows.keys()]
        found += [f"deleted server {uuid} is there" for uuid in deleted if uuid in rows and not rows[uuid].deleted]
        return found + await self._effects()

    async def _effects(self) -> list[str]:
        """What took effect more often than it was asked for, or not although it is said to be done."""

        async def work(tx: Any) -> list[Any]:
            wanted = operations.c
            return list(await tx.execute(sa.select(wanted.server_uuid, wanted.kind, wanted.state)))

        asked: Counter[tuple[str, str]] = Counter()
        done: Counter[tuple[str, str]] = Counter()
        for uuid, kind, state in await self.db.read(work):
            asked[uuid, kind] += 1
            done[uuid, kind] += state == "done"
        effects: Counter[tuple[str, str]] = Counter()
        for host in self.hosts.values():
            for guest in host.driver._host.guests.values():
                effects.update({(guest.uuid, verb): times for verb, times in guest.effects.items()})
        wrong = []
        for uuid in {uuid for uuid, _ in effects}:
            times, most = effects[uuid, "rebooted"], asked[uuid, "reboot"]
            if not done[uuid, "reboot"] <= times <= most:
                wrong.append(f"{uuid} was rebooted {times} times, of {most} {done[uuid, 'reboot']} are done")
            times, most = effects[uuid, "disks"], asked[uuid, "boot"] + ATTEMPTS - 1 + asked[uuid, "rebuild"]
            if times > most:
                wrong.append(f"{uuid} was given disks {times} times, {most} at most by its boot and rebuilds")
        return wrong
