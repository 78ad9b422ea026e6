"""A host that says nothing new costs no write; what a conductor does not know it asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
import structlog

from kilonova.agent.driver import Inventory, Resource
from kilonova.bus.messages import Heartbeat, Heartbeats, HostReport, Unchanged
from kilonova.conductor.hosts import Hosts
from kilonova.conductor.nodes import DRIFT
from kilonova.db import hosts as rows
from kilonova.db.engine import Database, Tx
from kilonova.db.hosts import COMPUTE
from kilonova.db.schema import create_all
from kilonova.db.tables import compute_nodes, instances, node_resources, services
from kilonova.numa import Cell
from kilonova.settings import ComputeSettings
from kilonova.world import World
from tests.support.server_rows import values

REPORT = HostReport(
    host="h1",
    incarnation="i",
    inventory=Inventory(
        hypervisor_type="sim",
        hypervisor_version=1,
        hypervisor_hostname="h1",
        vcpus=8,
        memory_mb=4096,
        local_gb=100,
        cpu_info={"features": ("a",), "topology": {"cores": 8}},
        traits=("HW_CPU_X86_AVX",),
        supported=(("x86_64", "qemu", "hvm"),),
        resources={"CUSTOM_GPU": Resource(total=2)},
        metrics={"load": 0.5},
        cells=(Cell(id=0, memory_mb=4096, cpus=(0, 1), dedicated=(2, 3), siblings=((2, 3),), pages=((2048, 64),)),),
        uptime="1 day",
        disk_available_least=50,
    ),
    digest="first",
)
SAME = Unchanged(digest="first", hypervisor_hostname="h1", uptime="1 day", disk_available_least=50)


class Conductor:
    def __init__(self, db: Database, settings: ComputeSettings | None = None) -> None:
        self.asked: list[str] = []
        self.hosts = Hosts(db, World(1), settings or ComputeSettings(), ask=self._ask)

    async def _ask(self, host: str) -> None:
        self.asked.append(host)

    async def hear(self, unchanged: Mapping[str, Unchanged]) -> list[str]:
        """The hosts that are asked to report."""
        self.asked.clear()
        self.hosts.on_heartbeats(Heartbeats(hosts=dict.fromkeys(unchanged, "i"), binary=COMPUTE, unchanged=unchanged))
        await self.hosts._flush()
        await self.hosts._recall()
        return self.asked


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/compute.sqlite", synchronous="OFF")
    await create_all(database)
    yield database
    await database.close()


async def node(db: Database) -> dict[str, Any]:
    async def work(tx: Tx) -> dict[str, Any]:
        return (await tx.execute(sa.select(compute_nodes))).one()._asdict()

    return await db.read(work)


async def test_a_report_that_says_nothing_new_changes_no_row(db: Database) -> None:
    conductor = Conductor(db)
    await conductor.hosts.on_report(REPORT)
    before = await node(db)
    await conductor.hosts.on_report(REPORT)
    assert await conductor.hear({"h1": SAME}) == []
    assert await node(db) == before
    smaller = msgspec.structs.replace(REPORT, inventory=msgspec.structs.replace(REPORT.inventory, vcpus=4))
    await conductor.hosts.on_report(smaller)
    after = await node(db)
    assert (after["vcpus"], after["generation"]) == (4, before["generation"] + 1)
    assert after["changed"] > before["changed"]


async def test_what_is_not_known_is_asked_for(db: Database) -> None:
    conductor = Conductor(db)
    assert await conductor.hear({"h1": SAME}) == ["h1"]
    await conductor.hosts.on_report(REPORT)
    assert await conductor.hear({"h1": SAME, "h2": SAME}) == ["h2"]
    assert await conductor.hear({"h1": msgspec.structs.replace(SAME, digest="other")}) == ["h1"]
    assert await conductor.hear({"h1": msgspec.structs.replace(SAME, hypervisor_hostname="renamed")}) == ["h1"]
    # Figures of a host that has no allocation of its own depend on the conductor's.
    assert await Conductor(db, ComputeSettings(cpu_allocation_ratio=2.0)).hear({"h1": SAME}) == ["h1"]
    # Of an agent that does not refer to its reports nothing is kept.
    await conductor.hosts.on_report(msgspec.structs.replace(REPORT, digest=""))
    assert await conductor.hear({"h1": SAME}) == ["h1"]


async def test_a_single_hosts_heartbeat_is_looked_at_too(db: Database) -> None:
    conductor = Conductor(db)
    conductor.hosts.on_heartbeat(Heartbeat(host="h1", binary=COMPUTE, incarnation="i", unchanged=SAME))
    await conductor.hosts._recall()
    assert conductor.asked == ["h1"]


async def test_a_service_that_was_deleted_is_asked_for_and_heard_of_by_its_new_row(db: Database) -> None:
    one, other = Conductor(db), Conductor(db)
    await one.hosts.on_report(REPORT)
    await other.hear({"h1": SAME})

    async def service(tx: Tx) -> rows.Service:
        return (await rows.find_services(tx, service_down_time=60.0, host="h1"))[0]

    gone = await db.read(service)
    await db.write(lambda tx: rows.delete_service(tx, gone))
    assert await other.hear({"h1": SAME}) == ["h1"]
    await one.hosts.on_report(REPORT)
    assert await other.hear({"h1": SAME}) == []
    await db.write(lambda tx: tx.execute(sa.update(services).values(last_seen=1.0)))
    await other.hear({"h1": SAME})
    assert (await db.read(service)).last_seen > 1.0


async def test_what_always_moves_is_kept_and_of_it_only_the_disk_concerns_schedulers(db: Database) -> None:
    conductor = Conductor(db)
    await conductor.hosts.on_report(REPORT)
    before = await node(db)
    await conductor.hear({"h1": msgspec.structs.replace(SAME, uptime="2 days")})
    later = await node(db)
    assert later == before | {"uptime": "2 days", "updated_at": later["updated_at"]}
    await conductor.hear({"h1": msgspec.structs.replace(SAME, uptime="2 days", disk_available_least=40)})
    last = await node(db)
    assert (last["uptime"], last["disk_available_least"]) == ("2 days", 40)
    assert last["changed"] > before["changed"]


@pytest.mark.parametrize("column", ["vcpus_used", "running_vms", "used"])
async def test_sums_that_are_off_are_put_right_and_told_of(db: Database, column: str) -> None:
    conductor = Conductor(db)
    await conductor.hosts.on_report(REPORT)
    claim = {"vcpus": 2, "memory_mb": 512, "disk_gb": 1, "resources": {"CUSTOM_GPU": 1}}
    server = values("a", host="h1", node="h1", claimed=True, claim=claim)
    table = node_resources if column == "used" else compute_nodes

    async def arrange(tx: Tx) -> None:
        await tx.execute(sa.insert(instances).values(server))
        held = {"vcpus_used": 2, "memory_mb_used": 512, "local_gb_used": 1, "running_vms": 1}
        await tx.execute(sa.update(compute_nodes).values(held))
        await tx.execute(sa.update(node_resources).values(used=1))

    await db.write(arrange)
    with structlog.testing.capture_logs() as logs:
        await conductor.hear({"h1": SAME})
    assert DRIFT not in [line["event"] for line in logs]
    right = await node(db)
    await db.write(lambda tx: tx.execute(sa.update(table).values({column: 7})))
    with structlog.testing.capture_logs() as logs:
        await conductor.hear({"h1": SAME})
    assert [line["event"] for line in logs] == [DRIFT]
    assert {name: (await node(db))[name] for name in ("vcpus_used", "running_vms")} == {
        name: right[name] for name in ("vcpus_used", "running_vms")
    }
    used = await db.read(lambda tx: tx.execute(sa.select(node_resources.c.used)))
    assert [row.used for row in used] == [1]
    assert (await node(db))["changed"] >= right["changed"]
