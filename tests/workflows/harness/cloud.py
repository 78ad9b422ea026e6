"""The roles on one database, one bus and a few simulated hosts, each a `Process` of its own; the dead are revived."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.agent.agent import Agent
from kilonova.agent.driver import Resource
from kilonova.agent.journal import Journal
from kilonova.agent.report import Ticker
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.state import SimState
from kilonova.bus.memory import MemoryBus, Tamper
from kilonova.compute.events import Event, take
from kilonova.compute.servers import boot, delete
from kilonova.conductor.pace import PACE, Pace
from kilonova.conductor.role import Conductor
from kilonova.conductor.scheduling import Scheduler
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import CommitUnknown, Database
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes, operations, services
from kilonova.db.types import database_seconds
from kilonova.engine.model import Workflow
from kilonova.pci import read_aliases, read_device
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import StaticImages
from kilonova.testing.network import FakeNetworking
from kilonova.workflows import ALL
from kilonova.workflows.env import Env
from tests.workflows.harness.clock import InlineWriter, on_this_clock
from tests.workflows.harness.director import Director
from tests.workflows.harness.process import Process

PASSWORD = "Correct-Horse-7"
NETWORK = "11111111-2222-3333-4444-555555555555"
APART = "22222222-2222-3333-4444-555555555555"
TOGETHER = "33333333-2222-3333-4444-555555555555"
"""Server groups with strict anti-affinity and affinity."""
GPU_FLAVOR = "3"
"""One vCPU and one of the two CUSTOM_GPU that each host has."""
RICH_FLAVOR = "4"
"""The same, and one of the two PCI devices."""
ALIASES = read_aliases(['{"name": "nic", "vendor_id": "8086", "product_id": "10fb"}'])
DEVICES = tuple(read_device(f"0000:81:00.{number}=8086:10fb") for number in range(2))
TOKEN = "gAAAAA-token-of-the-service-user"
# Guests that are left are not reaped, or nobody would see that they were.
SETTINGS = ComputeSettings(reclaim_instance_interval=1e9, pci_aliases=ALIASES, running_deleted_instance_action="noop")

VerbHook = Callable[[str, str, str, str], Awaitable[None]]
"""(host, verb, 'before' or 'after', server): may raise as the hypervisor would."""


def database(directory: Path) -> Database:
    return on_this_clock(Database(f"sqlite:///{directory}/compute.sqlite", synchronous="OFF"))


async def service_token() -> str | None:
    return TOKEN


@dataclass(kw_only=True)
class Config:
    hosts: int = 2
    conductors: int = 1
    alone: bool = True
    """A conductor that takes a killed one's place is told that there is no other, as in the all-in-one."""
    tamper: Tamper | None = None
    workflows: Mapping[str, Workflow[Env]] = field(default_factory=lambda: ALL)
    verb_hook: VerbHook | None = None
    settings: ComputeSettings = SETTINGS
    heal: Callable[[], None] = lambda: None
    """Ends the faults that were injected."""
    pace: Pace = PACE
    """As in production: waiting costs nothing here."""


class CountedImages(StaticImages):
    """Counts how often an image's bytes were really fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.downloads = 0

    async def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        self.downloads += 1
        async for chunk in super().download(image_id, token, offset):
            yield chunk


class _Script:
    """Lets the driver's verbs be points, and fail."""

    def __init__(self, process: Process, hook: VerbHook | None, plugged: Callable[[str, str], None]) -> None:
        self._process = process
        self._plugged = plugged
        self._hook = hook

    async def before(self, host: str, verb: str, uuid: str) -> None:
        await self._process.point(f"verb {verb} before")
        if self._hook is not None:
            await self._hook(host, verb, "before", uuid)

    async def after(self, host: str, verb: str, uuid: str) -> None:
        if verb in ("plugged", "attached"):
            self._plugged(host, uuid)
        await self._process.point(f"verb {verb} after")
        if self._hook is not None:
            await self._hook(host, verb, "after", uuid)


@dataclass(kw_only=True)
class Host:
    name: str
    process: Process
    agent: Agent
    driver: SimDriver
    forced_off: bool = False


class FaultCloud:
    def __init__(
        self,
        directory: Path,
        director: Director,
        seed: int,
        config: Config | None = None,
        db: Database | None = None,
    ) -> None:
        """`db`: on `directory`'s file, not connected; one that was used before has its statements compiled."""
        self.directory = directory
        self.director = director
        self.seed = seed
        self.config = config or Config()
        self.db = db or database(directory)
        self.bus = MemoryBus(tamper=self.config.tamper)
        self.images = CountedImages()
        self.images.add("image-1", size=64)
        self.network = FakeNetworking()
        self._network_file = directory / "network.json"
        if self._network_file.exists():
            self.network.collections = json.loads(self._network_file.read_text())
        else:
            self.network.add_network(id=NETWORK, project_id="project-1")
        self.network.on_event = self._network_event
        self.journal = Journal(directory / "journal.sqlite")
        self.state = SimState(directory / "hypervisor.sqlite")
        for file in (self.journal, self.state):
            file._writer = InlineWriter.instead_of(file._writer)
        self.conductors: dict[Process, Conductor] = {}
        self.hosts: dict[str, Host] = {}
        self.kills = 0
        self._kept: list[asyncio.Future[None]] = []
        self.not_before = 0.0
        """Until then, on the loop's clock, a message is still on its way."""
        self._numbers = itertools.count(1)
        self._processes: list[Process] = []
        self._reviving: set[asyncio.Task[None]] = set()
        self.api = self.process("api")

    def process(self, role: str) -> Process:
        process = Process(role, next(self._numbers), self.director.at)
        self._processes.append(process)
        return process

    def runtime(self, process: Process) -> Runtime:
        world = process.world(self.seed + process.number)
        return Runtime(
            world=world,
            db=process.database(self.db),
            bus=process.bus(self.bus),
            images=self.images,
            image_token=service_token,
            settings=self.config.settings,
            network=process.network(self.network),
        )

    # -- start and end
    async def start(self) -> None:
        await self.journal.start()
        await self.state.start()
        await self._start_scheduler()
        for _ in range(self.config.conductors):
            await self._start_conductor()
        for number in range(1, self.config.hosts + 1):
            await self._start_host(f"host-{number}")
        await self._hosts_up()

    async def _hosts_up(self) -> None:
        query = (
            sa.select(sa.func.count())
            .select_from(services)
            .join(compute_nodes, compute_nodes.c.service_id == services.c.id)
            .where(services.c.last_seen > database_seconds() - 30)
        )

        async def work(tx: Any) -> int:
            return int((await tx.execute(query)).scalar_one())

        async with asyncio.timeout(10):
            while await self.db.read(work) < self.config.hosts:
                await asyncio.sleep(0.002)

    async def _start_scheduler(self) -> None:
        rt = self.runtime(self.process("scheduler"))
        await Scheduler(rt.db, rt.bus, rt.world, rt.settings).start()

    async def _start_conductor(self) -> None:
        process = self.process("conductor")
        conductor = Conductor(
            self.runtime(process),
            probe=process.point,
            pace=self.config.pace,
            workflows=self.config.workflows,
        )
        self.conductors[process] = conductor
        await conductor.start(alone=self.config.alone and self.config.conductors == 1)

    async def _start_host(self, name: str) -> None:
        process = self.process("agent")
        rt = self.runtime(process)
        driver = SimDriver(
            SimOptions(download_images=True, resources={"CUSTOM_GPU": Resource(total=2)}, pci_devices=DEVICES),
            rt.world,
            host=name,
            state=process.state(self.state),
            script=_Script(process, self.config.verb_hook, self._plugged),
        )
        agent = Agent(
            host=name,
            driver=driver,
            bus=rt.bus,
            journal=process.journal(self.journal),
            world=rt.world,
            images=self.images,
            ticker=Ticker(rt.world),
            sync_power_state_interval=30.0,
            boot_id="boot-1",
        )
        self.hosts[name] = Host(name=name, process=process, agent=agent, driver=driver)
        await agent.start()

    def keep_network(self) -> None:
        """For clouds that start from this one's files."""
        self._network_file.write_text(json.dumps(self.network.collections))

    def kill_all(self) -> None:
        for process in self._processes:
            process.kill()

    async def close(self) -> None:
        """As a power cut would: nobody gets to finish anything."""
        for task in self._reviving:
            task.cancel()
        self.kill_all()
        await self.bus.close()
        await self.db.written()
        # Reads and rollbacks under way end in a few turns of the loop.
        await asyncio.sleep(0.005)
        await self.db.close()
        await self.journal.close()
        await self.state.close()

    # -- the network
    def _plugged(self, host: str, uuid: str) -> None:
        """The host's plane wires what is plugged, a moment later and whatever becomes of the agent."""

        async def wire() -> None:
            await asyncio.sleep(0.2)
            for port_id in self.hosts[host].driver.taps(uuid):
                await self.network.wired(port_id, host)

        self.keep(asyncio.ensure_future(wire()))

    async def _network_event(self, name: str, server_uuid: str, port_id: str) -> None:
        async def tell() -> None:
            event = Event(server_uuid=server_uuid, name=name, tag=port_id)
            await self.as_api(lambda rt: take(rt, [event], frozenset()))

        self.keep(asyncio.ensure_future(tell()))

    # -- kills
    async def kill(self, process: Process) -> None:
        """End a process between two of its lines; a new one takes its place a moment later."""
        process.kill()
        self.kills += 1
        task = asyncio.get_running_loop().create_task(self._revive(process))
        self._reviving.add(task)

    async def _revive(self, process: Process) -> None:
        await asyncio.sleep(0.01)
        if process in self.conductors:
            del self.conductors[process]
            await self._start_conductor()
        elif process.role == "scheduler":
            await self._start_scheduler()
        elif process.role == "agent":
            host = next(h for h in self.hosts.values() if h.process is process)
            while host.forced_off:
                await asyncio.sleep(0.01)
            await self._start_host(host.name)

    async def take_down(self, name: str) -> None:
        """The host goes away, and everybody knows."""
        host = self.hosts[name]
        host.forced_off = True
        if not host.process.dead:
            await self.kill(host.process)

        async def work(tx: Any) -> None:
            await tx.execute(sa.update(services).where(services.c.host == name).values(forced_down=True))

        await self.db.write(work)

    async def bring_back(self, name: str) -> None:
        async def work(tx: Any) -> None:
            await tx.execute(sa.update(services).where(services.c.host == name).values(forced_down=False))

        await self.db.write(work)
        self.hosts[name].forced_off = False

    def keep(self, task: asyncio.Future[None]) -> None:
        """Hold on to a task as long as the cloud lives."""
        self._kept.append(task)

    def busy(self) -> bool:
        """Something is still under way that no row of the database tells of."""
        return (
            asyncio.get_running_loop().time() < self.not_before
            or any(not task.done() for task in self._reviving)
            or any(process.frozen for process in self._processes)
            or any(host.agent._works for host in self.hosts.values() if not host.process.dead)
            or any(conductor.engine.running() for process, conductor in self.conductors.items() if not process.dead)
        )

    async def open_operations(self) -> int:
        query = (
            sa.select(sa.func.count())
            .select_from(operations)
            .where(operations.c.state.in_(("queued", "ready", "running")))
        )

        async def work(tx: Any) -> int:
            return int((await tx.execute(query)).scalar_one())

        return await self.db.read(work)

    # -- what users do
    def context(self, *, admin: bool = False) -> RequestContext:
        return RequestContext(
            user_id="user-1",
            project_id="project-1",
            roles=frozenset({"member"}),
            request_id=f"req-{next(self._numbers)}",
            is_admin=admin,
        )

    async def as_api(self, verb: Callable[[Runtime], Awaitable[Any]]) -> Any:
        """Run a verb in an API process. Returns None when that dies or meets a fault: the client is not told."""
        process = self.api
        task = asyncio.ensure_future(verb(self.runtime(process)))
        while not task.done():
            if process.dead:
                self.api = self.process("api")
                return None
            await asyncio.wait([task], timeout=0.005)
        try:
            return task.result()
        except (CommitUnknown, sqlalchemy.exc.OperationalError):
            return None

    async def create(
        self,
        *,
        flavor: str = "1",
        config_drive: bool = True,
        networks: list[dict[str, Any]] | None = None,
        group: str | None = None,
    ) -> str | None:
        request = boot.BootRequest(
            name="server",
            image_ref="image-1",
            flavor_ref=flavor,
            networks=networks or "none",
            admin_password=PASSWORD,
            config_drive=config_drive,
            files={"/etc/motd": "aGVsbG8="},
            tags=["blue"],
            scheduler_hints={"group": group} if group else {},
        )
        created = await self.as_api(lambda rt: boot.create(rt, self.context(), request))
        return created.uuids[0] if created is not None else None

    async def delete(self, uuid: str) -> None:
        server = await self.server(uuid)
        if server is not None:
            await self.as_api(lambda rt: delete.delete(rt, self.context(), server))

    async def server(self, uuid: str, *, deleted: bool = False) -> Server | None:
        return await self.db.read(lambda tx: servers.get(tx, uuid, deleted=deleted))

    async def all_servers(self) -> list[Server]:
        async def work(tx: Any) -> list[Server]:
            rows = await tx.execute(sa.select(servers.instances))
            return [servers.from_row(row) for row in rows]

        return await self.db.read(work)


@contextlib.asynccontextmanager
async def fault_cloud(directory: Path, director: Director, seed: int, config: Config | None = None) -> Any:
    cloud = FaultCloud(directory, director, seed, config)
    await cloud.start()
    try:
        yield cloud
    finally:
        await cloud.close()
