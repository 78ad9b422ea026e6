"""Processes killed with SIGKILL on MariaDB or PostgreSQL, and RabbitMQ: two conductors and the agents of three hosts.

The points at which a conductor kills itself are all that a runner passes in a boot and a delete.
Times here are patience only; nothing is asserted about how long something takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.agent.sim.state import SimHost, SimState
from kilonova.compute.servers import boot, delete
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes, instance_types, instances
from kilonova.errors import OverQuota
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings, QuotaDefaults
from kilonova.testing.cloud import make_cloud
from kilonova.testing.network import FakeNetworking
from kilonova.workflows import ALL
from kilonova.world import World
from tests.cluster.fault_worker import HOSTS, make_images, make_runtime, service_token
from tests.support.databases import LONG, DatabaseServer
from tests.support.rabbit import Broker
from tests.workflows.harness.audit import GONE, audit
from tests.workflows.harness.cloud import PASSWORD

SEED = int(os.environ.get("KILONOVA_SEED", "1"))
PATIENCE = 240.0
ROOT = Path(__file__).parents[2]


class _Host:
    """What a host's file says, as the audit asks a simulated host."""

    def __init__(self, held: SimHost) -> None:
        self.driver = SimpleNamespace(_host=held, left=held.left)


@dataclass(kw_only=True)
class Cluster:
    rt: Runtime
    directory: Path
    arguments: tuple[str, ...]
    workers: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    hosts: dict[str, Any] = field(default_factory=dict)
    kills: int = 0
    network: FakeNetworking = field(default_factory=FakeNetworking)
    """The servers here have no ports, and nobody makes one."""

    @property
    def db(self) -> Database:
        return self.rt.db

    async def start(self, name: str, kill_at: str | None = None) -> None:
        role = name.split("-")[0]
        arguments = [role, *self.arguments, *([kill_at] if kill_at else [])]
        log = (self.directory / f"{name}.log").open("ab")
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.cluster.fault_worker", *arguments,
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
        log.close()
        assert worker.stdout is not None
        self.workers[name] = worker
        ready = await asyncio.wait_for(worker.stdout.readline(), PATIENCE)
        assert ready == b"ready\n", (self.directory / f"{name}.log").read_text()[-3000:]

    async def kill(self, name: str) -> None:
        worker = self.workers.pop(name)
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signal.SIGKILL)
        await worker.wait()
        self.kills += 1

    async def close(self) -> None:
        for name in list(self.workers):
            await self.kill(name)

    def context(self) -> RequestContext:
        return RequestContext(
            user_id="u", project_id="p", roles=frozenset({"member"}), request_id=f"req-{uuid.uuid4()}"
        )

    async def create(self, count: int) -> None:
        request = boot.BootRequest(
            name="server", image_ref="image-1", flavor_ref="1", networks="none", admin_password=PASSWORD
        )
        await asyncio.gather(*(boot.create(self.rt, self.context(), request) for _ in range(count)))

    async def delete(self, chosen: Collection[Server]) -> None:
        await asyncio.gather(*(delete.delete(self.rt, self.context(), server) for server in chosen))

    async def all_servers(self) -> list[Server]:
        async def work(tx: Any) -> list[Server]:
            return [servers.from_row(row) for row in await tx.execute(sa.select(instances))]

        return await self.db.read(work)

    async def rest(self, expected: Collection[str]) -> None:
        """Until the audit finds nothing, twice; fails with what it found."""
        until = time.monotonic() + PATIENCE
        clean, wrong = 0, ["not looked"]
        while clean < 2:
            assert time.monotonic() < until, wrong[:10]
            await asyncio.sleep(1.0)
            state = SimState(self.directory / "hypervisor.sqlite")
            await state.start()
            self.hosts = {name: _Host(await state.host(name)) for name in HOSTS}
            await state.close()
            wrong = await audit(self, expected)  # type: ignore[arg-type]  # it asks for no more than this has
            clean = 0 if wrong else clean + 1


async def add_flavor(db: Database) -> None:
    async def work(tx: Any) -> None:
        await tx.execute(
            sa.insert(instance_types).values(
                flavorid="1", name="m1", vcpus=1, memory_mb=512, root_gb=1, extra_specs={}, created_at=World().now()
            )
        )

    await db.write(work)


@pytest.fixture
async def cluster(database_server: DatabaseServer, broker: Broker, tmp_path: Path) -> AsyncIterator[Cluster]:
    database, prefix = database_server.new_database(), f"faults-{uuid.uuid4().hex[:8]}"
    rt = await make_runtime(database, broker.transport_url, prefix)
    await create_all(rt.db)
    await add_flavor(rt.db)
    made = Cluster(rt=rt, directory=tmp_path, arguments=(str(tmp_path), database, broker.transport_url, prefix))
    try:
        await asyncio.gather(*(made.start(name) for name in ("conductor-1", "conductor-2", "agents-1")))
        yield made
    finally:
        await made.close()
        await rt.bus.close()
        await rt.db.close()


async def hosts_known(cluster: Cluster) -> None:
    async def count(tx: Any) -> int:
        return int((await tx.execute(sa.select(sa.func.count()).select_from(compute_nodes))).scalar_one())

    async with asyncio.timeout(PATIENCE):
        while await cluster.db.read(count) < len(HOSTS):
            await asyncio.sleep(0.2)


@pytest.mark.timeout(900)
async def test_kills_at_random_moments_leave_exactly_one_of_each(cluster: Cluster) -> None:
    await hosts_known(cluster)
    chance = random.Random(SEED)
    names = ("conductor-1", "conductor-2", "agents-1")

    async def violence(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0.05, 1.0))
            name = chance.choice(names)
            await cluster.kill(name)
            await cluster.start(name)

    await asyncio.gather(cluster.create(30), violence(5))
    await cluster.rest({"active"})
    found = await cluster.all_servers()
    await asyncio.gather(cluster.delete(found), violence(4))
    await cluster.rest({GONE})
    print(f"seed {SEED}: {len(found)} servers, {cluster.kills} kills")


@LONG
@pytest.mark.timeout(1200)
async def test_kills_at_every_point_of_a_runner_leave_exactly_one_of_each(cluster: Cluster) -> None:
    await hosts_known(cluster)
    died = 0
    for kind in ("boot", "delete"):
        for step in ALL[kind].steps:
            for moment in ("before effect", "after effect", "before commit", "after commit"):
                # Only the victim runs when the work arrives, so that it meets its point.
                await cluster.kill("conductor-1")
                await cluster.kill("conductor-2")
                await cluster.start("conductor-1", f"do:{step.name}:{moment}")
                if kind == "boot":
                    await cluster.create(2)
                else:
                    alive = [server for server in await cluster.all_servers() if not server.deleted]
                    await cluster.delete(alive[:2])
                async with asyncio.timeout(PATIENCE):
                    await cluster.workers["conductor-1"].wait()
                died += 1
                cluster.workers.pop("conductor-1")
                await asyncio.gather(cluster.start("conductor-1"), cluster.start("conductor-2"))
    await cluster.rest({"active", GONE})
    assert died == 4 * sum(len(ALL[kind].steps) for kind in ("boot", "delete"))


@pytest.mark.timeout(600)
async def test_32_clients_cannot_over_commit_hosts(database_server: DatabaseServer, tmp_path: Path) -> None:
    settings = ComputeSettings(cpu_allocation_ratio=5 / 64, quota=QuotaDefaults(instances=-1, cores=-1, ram=-1))
    async with make_cloud(tmp_path, hosts=2, database_url=database_server.new_database(), settings=settings) as cloud:
        await add_flavor(cloud.rt.db)
        cloud.images.add("image-1")
        created = await _boots(cloud.rt, 32)
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await cloud.rt.db.read(lambda tx: servers.get_many(tx, created))
                if all(server.operation_id is None for server in found):
                    break
                await asyncio.sleep(0.2)
        assert sorted(s.vm_state for s in found).count("active") == 10

        async def used(tx: Any) -> list[tuple[int, int]]:
            rows = await tx.execute(sa.select(compute_nodes.c.vcpus_used, compute_nodes.c.vcpus_max))
            return [(row.vcpus_used, row.vcpus_max) for row in rows]

        assert await cloud.rt.db.read(used) == [(5, 5), (5, 5)]


async def _boots(rt: Runtime, count: int) -> list[str]:
    context = RequestContext(user_id="u", project_id="p", roles=frozenset({"member"}), request_id="req-1")
    request = boot.BootRequest(name="server", image_ref="image-1", flavor_ref="1", networks="none")
    made = await asyncio.gather(*(boot.create(rt, context, request) for _ in range(count)), return_exceptions=True)
    unexpected = [one for one in made if isinstance(one, BaseException) and not isinstance(one, OverQuota)]
    assert not unexpected, unexpected[:3]
    return [one.uuids[0] for one in made if isinstance(one, boot.Created)]


@pytest.mark.timeout(600)
async def test_quota_is_exact_for_any_number_of_clients(database_server: DatabaseServer) -> None:
    limit, url = 8, database_server.new_database()
    settings = ComputeSettings(quota=QuotaDefaults(instances=limit, cores=-1, ram=-1))
    bus = SimpleNamespace(send=_nowhere)
    databases = [Database(url) for _ in range(4)]
    await create_all(databases[0])
    await add_flavor(databases[0])
    clients = [
        Runtime(
            world=World(),
            db=db,
            bus=bus,
            images=make_images(),
            image_token=service_token,
            settings=settings,  # type: ignore[arg-type]
        )
        for db in databases
    ]
    accepted = await asyncio.gather(*(_boots(rt, limit) for rt in clients))
    assert sum(len(some) for some in accepted) == limit

    async def count(tx: Any) -> int:
        return int((await tx.execute(sa.select(sa.func.count()).select_from(instances))).scalar_one())

    assert await databases[0].read(count) == limit
    for db in databases:
        await db.close()


async def _nowhere(address: str, message: object) -> None:
    return
