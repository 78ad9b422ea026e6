"""What breaks in the chaos run."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.support.chaos.plan import Plan, Report
from tests.support.cluster import Cluster, Member
from tests.support.machines import Machine, Site

Fault = Callable[[], Awaitable[None]]


class Faults:
    """What breaks, one after the other and at times together."""

    kills = 2
    """At least."""

    def __init__(self, cluster: Cluster, plan: Plan, report: Report) -> None:
        self.cluster = cluster
        self.plan = plan
        self.report = report
        self.random = random.Random(f"faults {plan.seed}")
        self._away: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Each kind at least once; then whatever comes."""
        kinds = [*self.shared(), *self.local(), *[self.kill] * self.kills]
        self.random.shuffle(kinds)
        until = time.monotonic() + self.plan.seconds
        while time.monotonic() < until or kinds:
            chosen = self.kill if self.random.random() < 0.9 else self.random.choice(self.local())
            fault = kinds.pop() if kinds else chosen
            task = asyncio.ensure_future(fault())
            self._tasks.add(task)
            if fault in self.shared():
                # One at a time: two would only be a longer one.
                await task
            await asyncio.sleep(self.random.uniform(0.3, 1.7) * self.plan.period)
        await asyncio.gather(*self._tasks)

    def shared(self) -> list[Fault]:
        """Of what everybody needs."""
        return [self.broker_restart, self.broker_cut, self.database_restart]

    def local(self) -> list[Fault]:
        return [self.host_cut]

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


class FaultsOfMachines(Faults):
    """Where processes are on machines the network itself fails: whatever is under way vanishes, and nobody is told."""

    kills = 6

    def __init__(self, site: Site, cluster: Cluster, plan: Plan, report: Report) -> None:
        super().__init__(cluster, plan, report)
        self.site = site
        # One machine of a kind at a time: the others have to do without it.
        self._apart = {"compute": asyncio.Lock(), "conductor": asyncio.Lock()}

    def shared(self) -> list[Fault]:
        return [*super().shared(), self.database_cut, self.services_power]

    def local(self) -> list[Fault]:
        return [self.host_cut, self.controller_cut, self.host_deaf, self.controller_deaf, self.controller_power]

    async def broker_cut(self) -> None:
        self.report.injected["broker cut off"] += 1
        await self._swallow(self.cluster.broker.port)

    async def database_cut(self) -> None:
        self.report.injected["database cut off"] += 1
        await self._swallow(self.cluster.server.port)

    async def _swallow(self, port: int) -> None:
        services = self.site.services
        await asyncio.to_thread(services.swallow, port)
        await asyncio.sleep(self.plan.broker_away)
        await asyncio.to_thread(services.let_through, port)

    async def services_power(self) -> None:
        """Database and broker are gone without a word, and come back; Identity and Image, which keep nothing, too."""
        self.report.injected["services lost power"] += 1
        cluster = self.cluster

        def end() -> None:
            for kill in (cluster.server.kill, cluster.broker.close, cluster.others.kill):
                kill()

        await asyncio.to_thread(self.site.switch.lose_power, self.site.services, end)
        await asyncio.sleep(self.random.uniform(0, 2))
        for start in (cluster.server.start, cluster.broker.start, cluster.others.start):
            await asyncio.to_thread(start)

    async def host_cut(self) -> None:
        async with self._machine("compute", "host partitioned") as (machine, _):
            await self._unplugged(machine)

    async def host_deaf(self) -> None:
        async with self._machine("compute", "host deaf") as (machine, _):
            await self._deaf(machine)

    async def controller_cut(self) -> None:
        async with self._machine("conductor", "controller partitioned") as (machine, _):
            await self._unplugged(machine)

    async def controller_deaf(self) -> None:
        async with self._machine("conductor", "controller deaf") as (machine, _):
            await self._deaf(machine)

    async def controller_power(self) -> None:
        """All that was on it starts anew, some time later."""
        async with self._machine("conductor", "controller lost power") as (machine, members):

            def end() -> None:
                for member in members:
                    self.cluster.kill(member)

            await asyncio.to_thread(self.site.switch.lose_power, machine, end)
            await asyncio.sleep(self.random.uniform(0, self.plan.host_away))
            await asyncio.gather(*(self._start(member) for member in members))

    async def _unplugged(self, machine: Machine) -> None:
        await asyncio.to_thread(self.site.switch.unplug, machine)
        await asyncio.sleep(self.plan.host_away)
        await asyncio.to_thread(self.site.switch.plug, machine)

    async def _deaf(self, machine: Machine) -> None:
        await asyncio.to_thread(machine.deafen)
        await asyncio.sleep(self.plan.host_away)
        await asyncio.to_thread(machine.hear)

    @asynccontextmanager
    async def _machine(self, role: str, what: str) -> AsyncIterator[tuple[Machine, list[Member]]]:
        """One with a process of this role, once none of its processes is away; they are within."""
        async with self._apart[role]:
            while not (choice := self._whole(role)):
                await asyncio.sleep(0.5)
            machine = self.random.choice(choice)
            members = [each for each in self.cluster.members.values() if each.place == machine]
            names = {member.name for member in members}
            self.report.injected[what] += 1
            self.report.struck |= names
            self._away |= names
            yield machine, members
            self._away -= names

    def _whole(self, role: str) -> list[Machine]:
        away = [each.place for each in self.cluster.members.values() if each.name in self._away]
        places = [each.place for each in self.cluster.of(role)]
        return [place for place in places if isinstance(place, Machine) and place not in away]
