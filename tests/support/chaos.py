"""The chaos run: servers made, rebooted, rebuilt and deleted while everything around them breaks; then the audit.

`python -m tests.support.chaos --seed N [--servers 1000] [--minutes 6]` prints what was injected and what was found. The
seed decides what is done to which server, what breaks when and which messages suffer; how processes run is not its.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import sqlalchemy as sa

from kilonova.agent.sim.state import SimState
from kilonova.compute import states
from kilonova.db import servers as server_rows
from kilonova.db.engine import Database
from kilonova.db.servers import Server
from kilonova.db.tables import instances
from kilonova.testing.network import FakeNetworking
from tests.support.cluster import IMAGE, Cluster, Member, make_cluster
from tests.support.load import Load, server
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker
from tests.workflows.harness.audit import GONE, audit


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how hard. Durations in seconds."""

    seed: int
    servers: int
    seconds: float
    hosts: int
    lease: int
    down: int
    """`service_down_time`"""
    broker_away: float
    host_away: float
    quiescence: float
    """The bound: at rest so long after the last fault."""
    period: float
    """Between two faults, on average."""


def short(seed: int) -> Plan:
    return Plan(
        seed=seed, servers=60, seconds=40, hosts=5, lease=5, down=10, broker_away=6, host_away=14, quiescence=240,
        period=5,
    )  # fmt: skip


def full(seed: int, servers: int = 1000, minutes: float = 6) -> Plan:
    return Plan(
        seed=seed, servers=servers, seconds=60 * minutes, hosts=50, lease=30, down=60, broker_away=60, host_away=120,
        quiescence=600, period=12,
    )  # fmt: skip


@dataclass(kw_only=True)
class Report:
    plan: Plan
    injected: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    """What clients were told, by request and status."""
    ended: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    struck: set[str] = field(default_factory=set)
    """Compute processes that were killed or partitioned: their hosts may have been silent for too long."""
    rest: float = 0.0
    """Seconds from the last fault until the audit found nothing."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.plan.seed}: {self.plan.servers} servers, {self.plan.seconds:.0f} s of faults",
            f"injected: {_counts(self.injected)}",
            f"messages: {_counts(self.messages)}",
            f"clients were told: {_counts(self.asked)}",
            f"servers ended: {_counts(self.ended)}",
            f"reasons of ERROR: {_counts(self.faults) or 'none'}",
            f"at rest after {self.rest:.0f} s (bound {self.plan.quiescence:.0f} s)",
            f"audit: {'nothing wrong' if not self.wrong else f'{len(self.wrong)} wrong'}",
        ]
        return "\n".join([*lines, *(f"  {each}" for each in self.wrong[:40])])


_SILENT = re.compile(r"Host '(\w+)-\d+' does not answer\.")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


class Client:
    """What users do. Requests whose answer is lost are looked up or done again, as a careful client would."""

    def __init__(self, load: Load, plan: Plan, report: Report) -> None:
        self.load = load
        self.random = random.Random(f"client {plan.seed}")
        self.report = report
        self.acknowledged: set[str] = set()
        self.deleted: set[str] = set()

    async def ask(self, what: str, method: str, path: str, body: Any = None) -> httpx.Response | None:
        """None when nobody said what became of it."""
        try:
            answer = await self.load.ask(method, path, body)
        except httpx.HTTPError:
            self.report.asked[f"{what}: no answer"] += 1
            return None
        self.report.asked[f"{what}: {answer.status_code}"] += 1
        return answer

    async def life(self, number: int, start: float, actions: list[tuple[float, str]]) -> None:
        await asyncio.sleep(start)
        uuid = None
        while uuid is None:
            answer = await self.ask("create", "POST", "/servers", server(f"s{number}"))
            if answer is not None and answer.status_code == 202:
                uuid = str(answer.json()["server"]["id"])
                self.acknowledged.add(uuid)
            else:
                await asyncio.sleep(1.0)
        for wait, action in actions:
            await asyncio.sleep(wait)
            if action == "delete":
                await self.delete(uuid)
                return
            body: dict[str, Any] = {"rebuild": {"imageRef": IMAGE}}
            if action != "rebuild":
                body = {"reboot": {"type": action}}
            await self.ask(action, "POST", f"/servers/{uuid}/action", body)

    async def delete(self, uuid: str) -> None:
        while True:
            answer = await self.ask("delete", "DELETE", f"/servers/{uuid}")
            if answer is not None and answer.status_code in (204, 404):
                self.deleted.add(uuid)
                return
            await asyncio.sleep(1.0)

    def lives(self, plan: Plan) -> list[Awaitable[None]]:
        chance = self.random
        made = []
        for number in range(plan.servers):
            actions = []
            for _ in range(chance.randint(1, 4)):
                kind = chance.choices(("SOFT", "HARD", "rebuild"), (3, 3, 4))[0]
                actions.append((chance.uniform(1, plan.seconds / 4), kind))
            if chance.random() < 0.5:
                actions.append((chance.uniform(0, plan.seconds / 8), "delete"))
            made.append(self.life(number, chance.uniform(0, plan.seconds / 2), actions))
        return made


class Faults:
    """What breaks, one after the other and at times together."""

    def __init__(self, cluster: Cluster, plan: Plan, report: Report) -> None:
        self.cluster = cluster
        self.plan = plan
        self.report = report
        self.random = random.Random(f"faults {plan.seed}")
        self._away: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Each kind at least once; then whatever comes."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.broker_restart, self.broker_cut, self.database_restart, self.host_cut, self.kill, self.kill,
        ]  # fmt: skip
        self.random.shuffle(kinds)
        until = time.monotonic() + self.plan.seconds
        while time.monotonic() < until or kinds:
            fault = kinds.pop() if kinds else self.random.choices((self.kill, self.host_cut), (9, 1))[0]
            task = asyncio.ensure_future(fault())
            self._tasks.add(task)
            if fault not in (self.kill, self.host_cut):
                # One of those that everybody needs at a time: two would only be a longer one.
                await task
            await asyncio.sleep(self.random.uniform(0.3, 1.7) * self.plan.period)
        await asyncio.gather(*self._tasks)

    async def kill(self) -> None:
        victims = [member for member in self.cluster.members.values() if member.name not in self._away]
        victim = self.random.choice(victims)
        self.report.injected[f"kill {victim.role}"] += 1
        self.report.struck.add(victim.name)
        self._away.add(victim.name)
        await asyncio.to_thread(self.cluster.kill, victim)
        await asyncio.sleep(self.random.uniform(0, 3))
        await self._start(victim)
        self._away.discard(victim.name)

    async def _start(self, member: Member) -> None:
        await asyncio.to_thread(self.cluster.start, member, timeout=240.0)

    async def broker_restart(self) -> None:
        self.report.injected["broker restarted"] += 1
        await asyncio.to_thread(self.cluster.broker.kill)
        await asyncio.sleep(self.random.uniform(0, 2))
        await asyncio.to_thread(self.cluster.broker.start)

    async def broker_cut(self) -> None:
        self.report.injected["broker cut off"] += 1
        gates = [member.gate for member in self.cluster.members.values() if member.gate is not None]
        for gate in gates:
            gate.cut()
        await asyncio.sleep(self.plan.broker_away)
        for gate in gates:
            gate.mend()

    async def database_restart(self) -> None:
        self.report.injected["database killed and restarted"] += 1
        await asyncio.to_thread(self.cluster.server.kill)
        await asyncio.sleep(self.random.uniform(0, 2))
        await asyncio.to_thread(self.cluster.server.start)

    async def host_cut(self) -> None:
        hosts = [member for member in self.cluster.of("compute") if member.name not in self._away]
        if not hosts:
            return
        victim = self.random.choice(hosts)
        assert victim.gate is not None
        self.report.injected["host partitioned"] += 1
        self.report.struck.add(victim.name)
        self._away.add(victim.name)
        victim.gate.cut()
        await asyncio.sleep(self.plan.host_away)
        victim.gate.mend()
        self._away.discard(victim.name)


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
        """What the simulated hypervisors hold, by their files."""
        for member in self.cluster.of("compute"):
            state = SimState(self.cluster.directory / member.name / "agent/sim.sqlite")
            await state.start()
            for number in range(1, self.cluster.hosts + 1):
                name = f"{member.name}-{number:03d}"
                held = await state.host(name)
                self.hosts[name] = SimpleNamespace(driver=SimpleNamespace(_host=held, left=held.left))
            await state.close()

    async def wrong(self, client: Client) -> list[str]:
        await self.look()
        found = await audit(self, {states.ACTIVE, states.ERROR, GONE}, guest_may_differ=True)  # type: ignore[arg-type]
        rows = {row.uuid: row for row in await self.all_servers()}
        found += [f"acknowledged server {uuid} is lost" for uuid in client.acknowledged - rows.keys()]
        found += [
            f"deleted server {uuid} is there" for uuid in client.deleted if uuid in rows and not rows[uuid].deleted
        ]
        return found


async def chaos(cluster: Cluster, plan: Plan, make_faults: type[Faults] = Faults) -> Report:
    """Run it, and audit."""
    report = Report(plan=plan)
    scene = Scene(cluster)
    try:
        async with Load(cluster, clients=64) as load:
            await load.flavor("tiny")
            client = Client(load, plan, report)
            faults = asyncio.ensure_future(make_faults(cluster, plan, report).run())
            lives = [asyncio.ensure_future(life) for life in client.lives(plan)]
            await faults
            began = time.monotonic()
            await asyncio.gather(*lives)
            while report.wrong or not report.rest:
                report.wrong = await scene.wrong(client)
                report.rest = time.monotonic() - began
                if not report.wrong or report.rest > plan.quiescence:
                    break
                await asyncio.sleep(2.0)
        for row in await scene.all_servers():
            report.ended[GONE if row.deleted else row.vm_state] += 1
            if not row.deleted and row.vm_state == states.ERROR:
                message = str((row.fault or {}).get("message"))
                report.faults[_SILENT.sub(r"Host '\1-...' does not answer.", message)] += 1
                silent = _SILENT.fullmatch(message)
                if silent is None or silent[1] not in report.struck:
                    report.wrong.append(f"in ERROR for no injected reason: {row.uuid}: {message}")
        for member in cluster.members.values():
            with suppress(OSError, ValueError):
                report.messages.update(json.loads(member.log.with_suffix(".weather").read_text()))
    finally:
        await scene.db.close()
    return report


def options(plan: Plan) -> dict[str, dict[str, object]]:
    """What nova.conf says for this plan."""
    return {
        "DEFAULT": {
            "service_down_time": plan.down,
            "report_interval": max(1, plan.down // 6),
            "sync_power_state_interval": 2 * plan.down,
        },
        "conductor": {"lease": plan.lease},
        "oslo_messaging_rabbit": {"heartbeat_timeout_threshold": max(2, plan.lease // 3)},
        "sim": {"durations": "running:0.1,disks:0.1,absent:0.05", "memory_mb": 1 << 20},
    }


WEATHER = "0.05 0.05 0.05 4"
"""Lost, doubled, late; seconds late at most."""


@contextmanager
def stage(mariadb: MariaDB, broker: Broker, plan: Plan) -> Iterator[Cluster]:
    weather = f"{plan.seed} {WEATHER}"
    with make_cluster(mariadb, broker, hosts=plan.hosts, options=options(plan), gated=True, weather=weather) as cluster:
        yield cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--short", action="store_true", help="The one of `make test`.")
    chosen = parser.parse_args()
    plan = short(chosen.seed) if chosen.short else full(chosen.seed, chosen.servers, chosen.minutes)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        # What was committed must survive the database's kill.
        mariadb, broker = MariaDB(Path(first), fsync=True), Broker(Path(second))
        try:
            mariadb.install()
            mariadb.start()
            mariadb.grant()
            broker.start()
            with stage(mariadb, broker, plan) as cluster:
                report = asyncio.run(chaos(cluster, plan))
                print(report, flush=True)
                if report.wrong:
                    sys.exit(1)
        finally:
            mariadb.close()
            broker.close()


if __name__ == "__main__":
    main()
