"""A process of the placement tests: `python -m tests.cluster.placement_worker ROLE DATABASE BROKER PREFIX [WORD...]`.

ROLE is `conductor`, `scheduler`, `agents` (WORD: names of simulated hosts) or `client` (WORDs: JSON of the creates;
prints the servers' ids). The hosts are equal, of HOST_VCPUS vCPUs, one of which is one of a server's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import structlog

from kilonova.agent.agent import Agent
from kilonova.agent.journal import Journal
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.compute.servers import boot
from kilonova.conductor.pace import Pace
from kilonova.conductor.role import Conductor
from kilonova.conductor.scheduling import Scheduler
from kilonova.context import RequestContext
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.world import World
from tests.cluster.fault_worker import make_runtime

HOST_VCPUS = 4
PACE = Pace(resend=(2.0, 5.0, 10.0), scheduler=10.0, tombstones=5.0)


def settings(before: ComputeSettings) -> ComputeSettings:
    quota = replace(before.quota, server_group_members=-1, server_groups=-1)
    return replace(before, cpu_allocation_ratio=1.0, quota=quota)


async def agents(rt: Runtime, hosts: list[str]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="agents-"))
    journal = Journal(directory / "journal.sqlite", synchronous="OFF")
    await journal.start()
    options = SimOptions(vcpus=HOST_VCPUS, durations={"running": 0.02})
    for host in hosts:
        agent = Agent(
            host=host,
            driver=SimDriver(options, rt.world, host=host),
            bus=rt.bus,
            journal=journal,
            world=rt.world,
            images=rt.images,  # type: ignore[arg-type]  # the tests' own is both catalog and source
            report_interval=1.0,
        )
        await agent.start()


async def client(rt: Runtime, number: str, count: int, flavor: str, group: str | None) -> None:
    """`count` creates, eight at a time."""
    gate = asyncio.Semaphore(8)

    async def create(nth: int) -> str:
        async with gate:
            context = RequestContext(
                user_id="u", project_id="p", roles=frozenset({"member"}), request_id=f"req-{number}-{nth}"
            )
            wished = boot.BootRequest(
                name="server",
                image_ref="image-1",
                flavor_ref=flavor,
                networks="none",
                scheduler_hints={"group": group} if group else {},
            )
            return (await boot.create(rt, context, wished)).uuids[0]

    print(json.dumps(await asyncio.gather(*(create(nth) for nth in range(count)))), flush=True)


async def main(role: str, database: str, broker: str, prefix: str, *words: str) -> None:
    rt = await make_runtime(database, broker, prefix)
    rt = replace(rt, world=World(), settings=settings(rt.settings))
    match role:
        case "conductor":
            await Conductor(rt, lease=30.0, sweep=0.5, pace=PACE).start()
        case "scheduler":
            await Scheduler(rt.db, rt.bus, rt.world, rt.settings).start()
        case "agents":
            await agents(rt, list(words))
        case "client":
            await client(rt, **json.loads(words[0]))
            await rt.bus.close()
            await rt.db.close()
            return
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
