"""A process of the fault tests: `python -m tests.cluster.fault_worker ROLE DIRECTORY DATABASE BROKER PREFIX [KILL_AT]`.

ROLE is `conductor` (with a scheduler) or `agents` (three simulated hosts on files in DIRECTORY). With KILL_AT,
'<point of a runner>', the process kills itself there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog

from kilonova.agent.agent import Agent
from kilonova.agent.journal import Journal
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.state import SimState
from kilonova.bus.rabbit import RabbitBus, RabbitOptions
from kilonova.bus.transport import parse_transport_url
from kilonova.conductor.pace import Pace
from kilonova.conductor.role import Conductor
from kilonova.conductor.scheduling import Scheduler
from kilonova.db.engine import Database
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings, QuotaDefaults
from kilonova.testing.cloud import StaticImages
from kilonova.world import World

TOKEN = "gAAAAA-token-of-the-service-user"
HOSTS = ("host-1", "host-2", "host-3")
PACE = Pace(resend=(0.5, 1.0, 2.0), host_state=0.5, scheduler=3.0, destroy=60.0, tombstones=1.0)
LEASE = 4.0


async def service_token() -> str | None:
    return TOKEN


def make_images() -> StaticImages:
    images = StaticImages()
    images.add("image-1", size=64)
    return images


async def make_runtime(database: str, broker: str, prefix: str) -> Runtime:
    bus = RabbitBus(RabbitOptions(brokers=tuple(parse_transport_url(broker)[0]), prefix=prefix))
    await bus.start()
    return Runtime(
        world=World(),
        db=Database(database),
        bus=bus,
        images=make_images(),
        image_token=service_token,
        settings=ComputeSettings(
            report_interval=1.0,
            cpu_allocation_ratio=16.0,
            quota=QuotaDefaults(instances=-1, cores=-1, ram=-1),
        ),
    )


async def conductor(rt: Runtime, kill_at: str | None) -> None:
    async def probe(point: str) -> None:
        if point == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    await Scheduler(rt.db, rt.bus, rt.world, rt.settings).start()
    await Conductor(rt, lease=LEASE, sweep=0.5, probe=probe, pace=PACE).start()


async def agents(rt: Runtime, directory: Path) -> None:
    journal = Journal(directory / "journal.sqlite")
    state = SimState(directory / "hypervisor.sqlite")
    await journal.start()
    await state.start()
    for host in HOSTS:
        driver = SimDriver(
            SimOptions(durations={"running": 0.05, "disks": 0.05, "absent": 0.05}), rt.world, host=host, state=state
        )
        agent = Agent(
            host=host,
            driver=driver,
            bus=rt.bus,
            journal=journal,
            world=rt.world,
            images=rt.images,  # type: ignore[arg-type]  # the tests' own is both catalog and source
            report_interval=1.0,
            sync_power_state_interval=10.0,
        )
        await agent.start()


async def main(role: str, directory: str, database: str, broker: str, prefix: str, kill_at: str | None = None) -> None:
    rt = await make_runtime(database, broker, prefix)
    if role == "conductor":
        await conductor(rt, kill_at)
    else:
        await agents(rt, Path(directory))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
