"""A whole Compute cloud in this process, without Identity and Image: for tests, benchmarks and comparisons."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from kilonova.agent.agent import Agent
from kilonova.agent.driver import ImageSpec
from kilonova.agent.journal import Journal
from kilonova.agent.report import Ticker
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.script import Script
from kilonova.agent.sim.state import SimState
from kilonova.bus import Bus
from kilonova.bus.memory import MemoryBus
from kilonova.compute.events import Event, take
from kilonova.conductor.role import Conductor
from kilonova.conductor.scheduling import Scheduler
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.engine.run import Probe, no_probe
from kilonova.errors import NotFound
from kilonova.runtime import Image, Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.network import FakeNetworking
from kilonova.world import World


class StaticImages:
    """An Image service of the test's own: what was added is there, with `data` as its bytes."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.data: dict[str, bytes] = {}

    def add(
        self,
        image_id: str,
        *,
        name: str = "image",
        size: int = 1024,
        status: str = "active",
        owner: str | None = None,
        visibility: str = "public",
        min_disk: int = 0,
        min_ram: int = 0,
        properties: dict[str, str] | None = None,
    ) -> Image:
        self.data[image_id] = bytes(size)
        image = Image(
            id=image_id,
            name=name,
            status=status,
            owner=owner,
            visibility=visibility,
            size=size,
            min_disk=min_disk,
            min_ram=min_ram,
            properties=properties or {},
            spec=ImageSpec(id=image_id, size=size, disk_format="raw", properties=properties or {}),
        )
        self.images[image_id] = image
        return image

    async def get(self, image_id: str, *, project_id: str) -> Image:
        image = self.images.get(image_id)
        if image is None or not (image.visibility == "public" or image.owner == project_id):
            raise NotFound(f"Image {image_id} could not be found.")
        return image

    async def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        yield self.data[image_id][offset:]


class Plane:
    """Every host's network plane: a port that is plugged on its host is wired a moment later."""

    def __init__(self, network: FakeNetworking) -> None:
        self.network = network
        self.drivers: dict[str, SimDriver] = {}

    async def before(self, host: str, verb: str, uuid: str) -> None:
        return

    async def after(self, host: str, verb: str, uuid: str) -> None:
        if verb in ("plugged", "attached"):
            for port_id in self.drivers[host].taps(uuid):
                await self.network.wired(port_id, host)


async def no_token() -> str | None:
    return None


@dataclass(kw_only=True)
class SimulatedHost:
    name: str
    driver: SimDriver
    agent: Agent


@dataclass(kw_only=True)
class TestCloud:
    """The roles of one process. `crash_*` drop a role as a kill would: nothing is finished or said."""

    __test__ = False

    rt: Runtime
    images: StaticImages
    conductor: Conductor
    scheduler: Scheduler
    hosts: dict[str, SimulatedHost] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def make_cloud(
    directory: Path,
    *,
    hosts: int = 1,
    database_url: str | None = None,
    settings: ComputeSettings | None = None,
    world: World | None = None,
    bus: Bus | None = None,
    options: SimOptions | None = None,
    script: Script | None = None,
    probe: Probe = no_probe,
    sweep: float = 0.2,
    synchronous: str = "FULL",
    network: FakeNetworking | None = None,
) -> AsyncIterator[TestCloud]:
    """Start database, bus, scheduler, conductor and `hosts` simulated hosts named host-1 ...; stop them at the end."""
    world = world or World()
    settings = settings or ComputeSettings()
    db = Database(database_url or f"sqlite:///{directory}/compute.sqlite", synchronous=synchronous)
    await create_all(db)
    bus = bus or MemoryBus()
    await bus.start()
    images = StaticImages()
    rt = Runtime(world=world, db=db, bus=bus, images=images, image_token=no_token, settings=settings, network=network)
    if network is not None:
        script = script or Plane(network)

        async def tell(name: str, server_uuid: str, port_id: str) -> None:
            await take(rt, [Event(server_uuid=server_uuid, name=name, tag=port_id)], frozenset())

        network.on_event = tell
    scheduler = Scheduler(db, bus, world, settings)
    conductor = Conductor(rt, probe=probe, sweep=sweep)
    cloud = TestCloud(rt=rt, images=images, conductor=conductor, scheduler=scheduler)
    journal = Journal(directory / "journal.sqlite", synchronous=synchronous)
    state = SimState(directory / "sim.sqlite")
    ticker = Ticker(world)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(db.close)
        stack.push_async_callback(bus.close)
        for part in (journal, state):
            await part.start()
            stack.push_async_callback(part.close)
        await scheduler.start()
        stack.push_async_callback(scheduler.stop)
        await conductor.start(alone=True)
        stack.push_async_callback(conductor.stop)
        for number in range(1, hosts + 1):
            name = f"host-{number}"
            driver = SimDriver(options or SimOptions(), world, host=name, state=state, script=script)
            if isinstance(script, Plane):
                script.drivers[name] = driver
            agent = Agent(host=name, driver=driver, bus=bus, journal=journal, world=world, images=images, ticker=ticker)
            await agent.start()
            stack.push_async_callback(agent.stop)
            cloud.hosts[name] = SimulatedHost(name=name, driver=driver, agent=agent)
        yield cloud
