"""Claims under pressure, on MariaDB or PostgreSQL, with RabbitMQ: two conductors, two schedulers, eight hosts, 32
clients in four processes. Every claim is exact: what is placed is what there is room for, and no refusal is said before
that.

Times here are patience only; nothing is asserted about how long something takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.compute.servers import delete
from kilonova.context import RequestContext
from kilonova.db import server_groups, servers
from kilonova.db.schema import create_all
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes, instance_group_hosts, instance_types, operation_steps, operations
from kilonova.runtime import Runtime
from tests.cluster.fault_worker import make_runtime
from tests.cluster.placement_worker import HOST_VCPUS
from tests.support.databases import LONG, DatabaseServer
from tests.support.rabbit import Broker

PATIENCE = 300.0
ROOT = Path(__file__).parents[2]
HOSTS = [f"host-{number}" for number in range(1, 9)]
CLIENTS = 4
"""Processes, each with eight creates in flight."""


@dataclass(kw_only=True)
class Cluster:
    rt: Runtime
    directory: Path
    arguments: tuple[str, ...]
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def run(self, role: str, *words: str) -> asyncio.subprocess.Process:
        log = (self.directory / f"{role}.log").open("ab")
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.cluster.placement_worker", role, *self.arguments, *words,
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
        log.close()
        self.workers.append(worker)
        return worker

    async def start(self, role: str, *words: str) -> None:
        worker = await self.run(role, *words)
        assert worker.stdout is not None
        ready = await asyncio.wait_for(worker.stdout.readline(), PATIENCE)
        assert ready == b"ready\n", (self.directory / f"{role}.log").read_text()[-3000:]

    async def stop(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    async def create(self, count: int, flavor: str, group: str | None = None) -> list[Server]:
        """From all clients at once; returns when every one is built or refused."""
        words = [
            json.dumps({"number": str(number), "count": count // CLIENTS, "flavor": flavor, "group": group})
            for number in range(CLIENTS)
        ]
        clients = await asyncio.gather(*(self.run("client", word) for word in words))
        told = await asyncio.wait_for(asyncio.gather(*(one.communicate() for one in clients)), PATIENCE)
        uuids = [one for out, _ in told for one in json.loads(out or b"[]")]
        assert len(uuids) == count, (self.directory / "client.log").read_text()[-3000:]
        return await self.settled(uuids)

    async def settled(self, uuids: list[str]) -> list[Server]:
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.rt.db.read(lambda tx: servers.get_many(tx, uuids))
                if all(server.operation_id is None for server in found):
                    return found
                await asyncio.sleep(0.3)

    async def rows(self, query: sa.Select[Any]) -> list[Any]:
        async def work(tx: Any) -> list[Any]:
            return list(await tx.execute(query))

        return await self.rt.db.read(work)

    async def clear(self, found: list[Server]) -> None:
        """Delete them; then nothing is held any more."""
        context = RequestContext(user_id="u", project_id="p", roles=frozenset({"member"}), request_id="req-delete")
        for server in found:
            await delete.delete(self.rt, context, server)
        left = await self.settled([server.uuid for server in found])
        assert all(server.deleted for server in left)
        nodes = await self.rows(sa.select(compute_nodes))
        assert {(n.vcpus_used, n.memory_mb_used, n.local_gb_used, n.running_vms) for n in nodes} == {(0, 0, 0, 0)}
        assert not any(row.servers for row in await self.rows(sa.select(instance_group_hosts)))


@pytest.fixture
async def cluster(database_server: DatabaseServer, broker: Broker, tmp_path: Path) -> AsyncIterator[Cluster]:
    database, prefix = database_server.new_database(), f"placement-{uuid.uuid4().hex[:8]}"
    rt = await make_runtime(database, broker.transport_url, prefix)
    await create_all(rt.db)
    await rt.db.write(_flavors)
    made = Cluster(rt=rt, directory=tmp_path, arguments=(database, broker.transport_url, prefix))
    try:
        await asyncio.gather(
            *(made.start(role) for role in ("conductor", "conductor", "scheduler", "scheduler")),
            made.start("agents", *HOSTS[:4]),
            made.start("agents", *HOSTS[4:]),
        )
        async with asyncio.timeout(PATIENCE):
            while len(await made.rows(sa.select(compute_nodes.c.id))) < len(HOSTS):
                await asyncio.sleep(0.2)
        yield made
    finally:
        await made.stop()
        await rt.bus.close()
        await rt.db.close()


async def _flavors(tx: Any) -> None:
    """'cpu' takes one vCPU; 'free' takes memory only, of which there is plenty."""
    for name, specs in (("cpu", {}), ("free", {"resources:VCPU": "0"})):
        row = {"flavorid": name, "name": name, "vcpus": 1, "memory_mb": 64, "root_gb": 1, "extra_specs": specs}
        await tx.execute(sa.insert(instance_types).values(**row, created_at=sa.func.now()))


async def add_group(cluster: Cluster, policy: str, **rules: int) -> str:
    values = {
        "uuid": str(uuid.uuid4()), "project_id": "p", "user_id": "u", "name": policy, "policy": policy, "rules": rules,
        "created_at": cluster.rt.world.now(),
    }  # fmt: skip
    return (await cluster.rt.db.write(lambda tx: server_groups.insert(tx, values))).uuid


def places(found: list[Server]) -> Counter[str]:
    assert {server.vm_state for server in found} <= {"active", "error"}
    assert all(server.claimed == (server.vm_state == "active") for server in found)
    return Counter(server.host or "" for server in found if server.vm_state == "active")


@LONG
@pytest.mark.timeout(900)
async def test_claims_are_exact_for_any_number_of_clients_schedulers_and_conductors(cluster: Cluster) -> None:
    # More demand than capacity.
    found = await cluster.create(60, "cpu")
    assert places(found) == Counter(dict.fromkeys(HOSTS, HOST_VCPUS))
    refused = [server.uuid for server in found if server.vm_state == "error"]
    assert len(refused) == 60 - len(HOSTS) * HOST_VCPUS
    assert all("not enough vCPUs" in (server.fault or {})["message"] for server in found if server.uuid in refused)
    steps = await cluster.rows(
        sa.select(operation_steps.c.finished_at, operation_steps.c.result, operations.c.server_uuid)
        .join_from(operation_steps, operations, operations.c.id == operation_steps.c.operation_id)
        .where(operation_steps.c.name == "schedule", operation_steps.c.phase == "do")
    )
    placed_last = max(row.finished_at for row in steps if row.result == "Success")
    refused_first = min(row.finished_at for row in steps if row.server_uuid in refused)
    assert refused_first >= placed_last, "a refusal was said while there was room"
    await cluster.clear(found)

    # Strict anti-affinity.
    found = await cluster.create(40, "free", await add_group(cluster, "anti-affinity"))
    assert places(found) == Counter(dict.fromkeys(HOSTS, 1))
    await cluster.clear(found)
    found = await cluster.create(40, "free", await add_group(cluster, "anti-affinity", max_server_per_host=2))
    assert places(found) == Counter(dict.fromkeys(HOSTS, 2))
    await cluster.clear(found)

    # Affinity: the one host is filled, and no other is begun.
    found = await cluster.create(40, "cpu", await add_group(cluster, "affinity"))
    assert list(places(found).values()) == [HOST_VCPUS]
    await cluster.clear(found)

    # A burst over equal hosts.
    found = await cluster.create(160, "free")
    share = places(found)
    assert share.total() == 160
    assert max(share.values()) <= 2 * 160 // len(HOSTS), share
    await cluster.clear(found)
