"""The roles, each a node of the loop, on one database, one broker and a few hosts; the dead are revived."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.agent import report
from kilonova.agent.agent import Agent
from kilonova.agent.driver import PowerState, Resource
from kilonova.agent.report import Ticker
from kilonova.agent.sim.cells import even_cells
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.state import SimGuest
from kilonova.compute.events import Event, take
from kilonova.conductor import hosts
from kilonova.conductor.pace import Pace
from kilonova.conductor.role import Conductor
from kilonova.conductor.scheduling import Scheduler
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import CommitUnknown
from kilonova.db.servers import Server
from kilonova.errors import KilonovaError
from kilonova.numa import divided
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings, QuotaDefaults
from kilonova.testing.network import FakeNetworking
from tests.simulation.database import SimDatabase, Store
from tests.simulation.loop import Loop, Node
from tests.simulation.parts import JournalFile, SimBus, SimHypervisor, SimImages, SimNetwork, SimWorld, Verbs, made_uuid
from tests.simulation.weather import Trace, Weather, host_of

NETWORK = "11111111-2222-3333-4444-555555555555"
PROJECT = "project-1"
GROUP = "99999999-2222-3333-4444-555555555555"
SWEEP = 6.0
"""Seconds between a conductor's looks for operations; as in production it would be half of all that is done."""
PACE = Pace(stray_ports=30.0, network_info=30.0)
"""Reconcilers come round soon, so that a run may end soon."""

# Timers that only poll, at a pace that costs a run less.
report._TICK = 10.0
hosts.FLUSH = 12.0


async def service_token() -> str | None:
    return "token"


@dataclass(kw_only=True)
class Host:
    name: str
    node: Node
    agent: Agent
    driver: SimDriver
    boot: int = 1
    away: bool = False
    """Its agent does not come back by itself."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How big a run is."""

    hosts: int
    conductors: int
    schedulers: int
    vcpus: int
    """Of each host; flavor `n` takes n of them."""
    quota: int
    """Of instances; -1: none."""
    own_quota: int
    """Of the one user; -1: none."""
    gold: int
    """Of a rare resource on each host; flavor `gold` takes one."""
    own: int
    """CPUs on each host that a server may have for itself; flavor `own` takes one."""
    policy: str | None
    """Of the server group that there is."""
    most_per_host: int
    """Its members, with anti-affinity."""
    max_attempts: int
    resume_guests: bool
    alone: bool
    """A conductor is told that there is no other one."""
    reclaim: float
    """Seconds in which a soft deletion can be taken back; 0: there is none."""

    @classmethod
    def of(cls, chance: random.Random) -> Plan:
        conductors = chance.choice((1, 1, 2))
        return cls(
            hosts=chance.choice((1, 2, 2, 3)),
            conductors=conductors,
            schedulers=chance.choice((1, 1, 2)),
            vcpus=chance.choice((1, 2, 4, 8)),
            quota=chance.choice((-1, -1, 1, 2, 3)),
            own_quota=chance.choice((-1, -1, -1, 1, 2)),
            gold=chance.choice((1, 1, 2)),
            own=chance.choice((0, 1, 2)),
            policy=chance.choice((None, "affinity", "anti-affinity", "anti-affinity", "soft-anti-affinity")),
            most_per_host=chance.choice((1, 1, 2)),
            max_attempts=chance.choice((1, 2, 3)),
            resume_guests=chance.random() < 0.5,
            alone=conductors == 1 and chance.random() < 0.5,
            reclaim=chance.choice((0.0, 20.0, 200.0)),
        )

    def settings(self) -> ComputeSettings:
        return ComputeSettings(
            cpu_allocation_ratio=1.0,
            quota=QuotaDefaults(instances=self.quota, cores=-1, ram=-1),
            max_attempts=self.max_attempts,
            resume_guests_state_on_host_boot=self.resume_guests,
            reclaim_instance_interval=self.reclaim,
            # Guests that are left are not reaped, or nobody would see that they were.
            running_deleted_instance_action="noop",
        )


class Cloud:
    def __init__(self, loop: Loop, weather: Weather, trace: Trace, store: Store, journal: JournalFile, plan: Plan):
        self.loop = loop
        self.weather = weather
        self.trace = trace
        self.plan = plan
        self.store = store
        self.settings = plan.settings()
        self.bus = SimBus(weather)
        self.images = SimImages(weather)
        ids = random.Random(weather.chance.getrandbits(32))
        self.network = FakeNetworking(lambda: made_uuid(ids))
        self.network.add_network(id=NETWORK, project_id=PROJECT)
        self.network.on_event = self._network_event
        self.hypervisor = SimHypervisor(weather, self._plugged)
        self._journal_file = journal
        self.hosts: dict[str, Host] = {}
        self.conductors: dict[Node, Conductor] = {}
        self.db = SimDatabase(loop.world, store, weather)
        self._numbers = 0
        self._kept: set[asyncio.Task[None]] = set()
        self.revivals = 0
        """Processes that are about to be started."""
        self.api = self._node("api")
        loop.strike = self._strike

    def _node(self, role: str) -> Node:
        self._numbers += 1
        return self.loop.node(f"{role}#{self._numbers}")

    def runtime(self, node: Node) -> Runtime:
        return Runtime(
            world=SimWorld(node, self.weather),
            db=SimDatabase(node, self.store, self.weather),
            bus=self.bus,
            images=self.images,
            image_token=service_token,
            settings=self.settings,
            network=SimNetwork(self.network, self.weather),  # type: ignore[arg-type]
        )

    def keep(self, work: Any) -> None:
        """Let the world do it, meanwhile."""
        task = self.loop.world.spawn(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    # -- roles
    async def start(self) -> None:
        self._settle_rules()
        for _ in range(self.plan.schedulers):
            self._start_scheduler()
        for _ in range(self.plan.conductors):
            self._start_conductor()
        for number in range(1, self.plan.hosts + 1):
            self._start_host(f"host-{number}")
        while self.store.raw.execute("SELECT count(*) FROM compute_nodes").fetchone()[0] < self.plan.hosts:
            await asyncio.sleep(0.05)

    def _settle_rules(self) -> None:
        """What an administrator has set: a server group, a user's quota."""
        plan, raw = self.plan, self.store.raw
        if plan.policy is not None:
            rules = f'{{"max_server_per_host": {plan.most_per_host}}}' if plan.policy == "anti-affinity" else "{}"
            raw.execute(
                "INSERT INTO instance_groups (uuid, project_id, user_id, name, policy, rules, created_at)"
                " VALUES (?, ?, 'user-1', 'group', ?, ?, '2030-01-01 00:00:00.000000')",
                (GROUP, PROJECT, plan.policy, rules),
            )
        if plan.own_quota >= 0:
            raw.execute(
                "INSERT INTO quotas (project_id, user_id, resource, hard_limit) VALUES (?, 'user-1', 'instances', ?)",
                (PROJECT, plan.own_quota),
            )

    def _start_scheduler(self) -> None:
        node = self._node("scheduler")
        rt = self.runtime(node)
        self._begin(node, Scheduler(rt.db, rt.bus, rt.world, rt.settings).start())

    def _start_conductor(self) -> None:
        node = self._node("conductor")
        conductor = Conductor(self.runtime(node), sweep=SWEEP, pace=PACE)
        self.conductors[node] = conductor
        self._begin(node, conductor.start(alone=self.plan.alone))

    def _start_host(self, name: str, boot: int = 1) -> None:
        node = self._node(f"agent {name}")
        rt = self.runtime(node)
        driver = SimDriver(
            SimOptions(
                download_images=True,
                vcpus=self.plan.vcpus,
                cells=divided(
                    even_cells(1, self.plan.vcpus + self.plan.own, 262_144),
                    frozenset(range(self.plan.vcpus)),
                    frozenset(range(self.plan.vcpus, self.plan.vcpus + self.plan.own)),
                ),
                resources={"CUSTOM_GOLD": Resource(total=self.plan.gold)},
            ),
            rt.world,
            host=name,
            state=self.hypervisor,
            script=Verbs(self.weather),
        )
        agent = Agent(
            host=name,
            driver=driver,
            bus=rt.bus,
            journal=self._journal_file.journal(self.weather),
            world=rt.world,
            images=self.images,
            ticker=Ticker(rt.world),
            sync_power_state_interval=30.0,
            boot_id=f"boot-{boot}",
        )
        self.hosts[name] = Host(name=name, node=node, agent=agent, driver=driver, boot=boot)
        self._begin(node, agent.start())

    def _begin(self, node: Node, start: Coroutine[Any, Any, None]) -> None:
        """A process that cannot start ends, and is started again."""
        task = node.spawn(start)

        def started(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.trace.say(node, f"cannot start: {error!r}")
                self.kill(node)

        task.add_done_callback(started, context=self.loop.world.context())

    # -- what befalls them
    def _strike(self, node: Node) -> None:
        """Between two of its awaits something happens to a process."""
        weather = self.weather
        if node.dead or node.frozen:
            pass
        elif weather.chance.random() < weather.freezes:
            seconds = weather.chance.choice((0.5, 5.0, 40.0, 100.0)) * weather.chance.random()
            self.trace.fault(node, "frozen", f"for {seconds:.1f} s")
            self.loop.freeze(node)
            self.loop.call_later(seconds, self.loop.thaw, node, context=self.loop.world.context())
        elif host_of(node) in self.hosts and weather.chance.random() < 0.25:
            self.keep(self._reboot_host(self.hosts[host_of(node)]))
        else:
            self.kill(node)
        weather.next_strike()

    def kill(self, node: Node, *, revive: bool = True) -> None:
        self.trace.fault(node, "killed")
        self.loop.kill(node)
        self.bus.forget_all(node)
        if host_of(node) in self.hypervisor.hosts:
            # What was the process's own.
            self.hypervisor.hosts[host_of(node)].downloads.clear()
        if revive:
            self.keep(self._revive(node))

    async def _revive(self, node: Node) -> None:
        self.revivals += 1
        away = self.weather.chance.choice((0.05, 0.05, 2.0, 40.0, 100.0)) * self.weather.chance.random()
        await asyncio.sleep(away)
        self.revivals -= 1
        self.trace.say(node, "is started anew")
        if node is self.api:
            self.api = self._node("api")
        elif node in self.conductors:
            del self.conductors[node]
            self._start_conductor()
        elif node.name.startswith("scheduler"):
            self._start_scheduler()
        else:
            host = self.hosts[host_of(node)]
            if host.node is node:
                self._start_host(host.name, host.boot)

    async def _reboot_host(self, host: Host) -> None:
        """The machine itself: its guests are off afterwards."""
        self.kill(host.node, revive=False)
        self.trace.fault(host.name, "machine booted")
        self.revivals += 1
        for guest in (await self.hypervisor.host(host.name)).guests.values():
            if guest.defined:
                guest.power_state = (
                    PowerState.SUSPENDED if guest.power_state == PowerState.SUSPENDED else PowerState.SHUTDOWN
                )
            # Taps live in the kernel.
            guest.taps = []
            self.hypervisor.note(guest)
        await asyncio.sleep(self.weather.chance.choice((2.0, 40.0, 100.0)) * self.weather.chance.random())
        self.revivals -= 1
        self._start_host(host.name, host.boot + 1)

    async def cut_off(self, name: str, seconds: float) -> None:
        """The host is there and does what it does, but no message gets through."""
        self.trace.fault(name, "cut off", f"for {seconds:.1f} s")
        self.weather.cut_off.add(name)
        await asyncio.sleep(seconds)
        self.weather.cut_off.discard(name)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.trace.say("world", "calm")
        self.weather.calm()

    # -- Networking
    def _plugged(self, host: str, guest: SimGuest) -> None:
        """The host's plane wires what is plugged, a moment later and whatever becomes of the agent."""

        async def wire() -> None:
            for seconds in (0.2, 2.0, 10.0):
                await asyncio.sleep(seconds)
                for port_id in list(guest.taps):
                    await self.network.wired(port_id, host)

        self.keep(wire())

    async def _network_event(self, name: str, server_uuid: str, port_id: str) -> None:
        event = Event(server_uuid=server_uuid, name=name, tag=port_id)

        async def tell() -> None:
            with contextlib.suppress(KilonovaError):
                await self.as_api(lambda rt: take(rt, [event], frozenset()))

        if not self.weather.happens(self.weather.lost):
            self.keep(tell())

    # -- what users do
    def context(self) -> RequestContext:
        self._numbers += 1
        return RequestContext(
            user_id="user-1",
            project_id=PROJECT,
            roles=frozenset({"member"}),
            request_id=f"req-{self._numbers}",
            is_admin=False,
        )

    async def as_api(self, verb: Callable[[Runtime], Awaitable[Any]]) -> Any:
        """Run a verb in the API's process. Raises what the client is told, TimeoutError when it is told nothing."""
        node = self.api
        task = node.spawn(verb(self.runtime(node)))  # type: ignore[arg-type]
        waited = 0.0
        while not task.done():
            if node.dead or waited > 300.0:
                raise TimeoutError
            await asyncio.sleep(0.02 if waited < 1.0 else 1.0)
            waited += 0.02 if waited < 1.0 else 1.0
        try:
            return task.result()
        except (CommitUnknown, sqlalchemy.exc.OperationalError) as error:
            raise TimeoutError from error

    async def all_servers(self) -> list[Server]:
        async def work(tx: Any) -> list[Server]:
            return [servers.from_row(row) for row in await tx.execute(sa.select(servers.instances))]

        return await self.db.read(work)

    def busy(self) -> list[str]:
        """What is under way that no row of the database tells of."""
        found = ["somebody is dead"] if self.revivals else []
        found += [f"{node} is frozen" for node in self.loop.nodes if node.frozen and not node.dead]
        for host in self.hosts.values():
            found += [f"{host.node} is dead"] if host.node.dead else []
            found += [f"{host.node} works on {key}" for key in host.agent._works]
        for node, conductor in self.conductors.items():
            if not node.dead:
                found += [f"{node} runs operation {number}" for number in conductor.engine._running]
        return found
