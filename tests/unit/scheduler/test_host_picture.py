"""The picture follows the database: by changes, in two statements, and by full reads where a mark was missed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.agent.allocation import Allocation
from kilonova.agent.driver import Inventory, Resource
from kilonova.bus.messages import HostReport
from kilonova.compute import claims
from kilonova.compute.needs import Needs
from kilonova.conductor import host_picture
from kilonova.conductor.host_picture import HostPicture
from kilonova.conductor.nodes import ensure_node
from kilonova.db import aggregates
from kilonova.db.engine import Database, Tx
from kilonova.db.schema import create_all
from kilonova.db.tables import compute_nodes, instances, services
from kilonova.db.types import database_seconds
from kilonova.scheduler.picture import Picture
from kilonova.settings import ComputeSettings
from kilonova.world import World
from tests.support.hosts import hosts_of, placed, request, rules
from tests.support.server_rows import values

INVENTORY = Inventory(
    hypervisor_type="sim", hypervisor_version=1, hypervisor_hostname="", vcpus=8, memory_mb=4096, local_gb=100
)
ALLOCATION = Allocation(cpu_ratio=1.0, ram_ratio=1.0, reserved_memory_mb=0)


class Clock(World):
    def __init__(self) -> None:
        super().__init__(1)
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/compute.sqlite", synchronous="OFF")
    await create_all(database)
    yield database
    await database.close()


async def add_host(db: Database, name: str, allocation: Allocation = ALLOCATION, **inventory: Any) -> int:
    found = {"hypervisor_hostname": name, "resources": {"CUSTOM_GPU": Resource(total=2)}} | inventory
    report = HostReport(
        host=name, incarnation="i", inventory=Inventory(**{f: getattr(INVENTORY, f) for f in _FIELDS} | found)
    )

    async def work(tx: Tx) -> int:
        query = sa.select(services.c.id).where(services.c.host == name)
        service_id = (await tx.execute(query)).scalar()
        if service_id is None:
            row = {
                "uuid": World().uuid(), "host": name, "binary": "nova-compute", "created_at": World().now(),
                "last_seen": database_seconds(),
            }  # fmt: skip
            key = (await tx.execute(sa.insert(services).values(row))).inserted_primary_key
            assert key is not None
            service_id = key[0]
        await ensure_node(tx, World(), service_id, report, allocation)
        return int((await tx.execute(sa.select(compute_nodes.c.id).where(compute_nodes.c.host == name))).scalar_one())

    return await db.write(work)


_FIELDS = ("hypervisor_type", "hypervisor_version", "hypervisor_hostname", "vcpus", "memory_mb", "local_gb")


async def set_service(db: Database, name: str, **changes: Any) -> None:
    async def work(tx: Tx) -> None:
        await tx.execute(sa.update(services).where(services.c.host == name).values(**changes))

    await db.write(work)


def seen(picture: Picture) -> list[Any]:
    """Everything that decisions depend on, whatever the order of rows."""
    order = sorted(range(len(picture)), key=lambda row: picture.nodes[row].id)
    return [
        (
            picture.nodes[row].host,
            picture.zone_of(picture.nodes[row].host),
            bool(picture.usable[row]),
            *(int(picture.number(name)[row]) for name in ("vcpus_max", "vcpus_used", "memory_mb_used", "running_vms")),
            {kind: (int(most[row]), int(used[row])) for kind, (most, used) in picture.resources.items()},
            int(picture.number("io_ops")[row]),
        )
        for row in order
    ]


async def fresh(db: Database) -> list[Any]:
    return seen(await HostPicture(db, Clock(), ComputeSettings()).current(0.0))


async def test_every_change_is_seen_at_the_next_look(db: Database) -> None:
    clock = Clock()
    hosts = HostPicture(db, clock, ComputeSettings())
    nodes = [await add_host(db, f"h{number}") for number in range(4)]

    async def agrees() -> Picture:
        clock.seconds += 2.0
        picture = await hosts.current(1.0)
        assert seen(picture) == await fresh(db)
        return picture

    await agrees()
    needs = Needs(vcpus=2, memory_mb=512, disk_gb=1, resources={"CUSTOM_GPU": 1})
    assert await db.write(lambda tx: claims.claim(tx, needs, nodes[1]))
    assert seen(await agrees())[1][4:7] == (2, 512, 1)
    await set_service(db, "h0", disabled=True)
    await set_service(db, "h2", forced_down=True)
    picture = await agrees()
    assert hosts_of(placed(picture, request())) == ["h1", "h3"]
    assert [picture.why_unusable(row) for row in range(4)] == ["disabled", None, "down", None]
    await set_service(db, "h0", disabled=False)
    aggregate = await db.write(
        lambda tx: aggregates.insert(tx, "u", "east", {"availability_zone": "east"}, clock.now())
    )
    await db.write(lambda tx: aggregates.add_host(tx, aggregate.id, "h3"))
    assert seen(await agrees())[3][1] == "east"
    await db.write(lambda tx: aggregates.set_metadata(tx, aggregate.id, {"availability_zone": None}))
    assert seen(await agrees())[3][1] == "nova"
    await add_host(db, "h9", vcpus=64)
    assert len(await agrees()) == 5

    async def drop(tx: Tx) -> None:
        await tx.execute(sa.delete(compute_nodes).where(compute_nodes.c.host == "h1"))

    await db.write(drop)
    assert len(await agrees()) == 4


async def test_a_look_costs_one_statement_and_another_for_what_changed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_picture, "OVERLAP", 0.0)
    clock = Clock()
    hosts = HostPicture(db, clock, ComputeSettings())
    nodes = [await add_host(db, f"h{number}") for number in range(20)]
    await hosts.current(0.0)

    async def statements(max_age: float) -> int:
        clock.seconds += 2.0
        # The database's clock counts milliseconds.
        await asyncio.sleep(0.01)
        before = db.statements
        await hosts.current(max_age)
        return db.statements - before

    assert [await statements(9.0), await statements(1.0), await statements(1.0)] == [0, 1, 1]
    await db.write(lambda tx: claims.claim(tx, Needs(vcpus=1, memory_mb=1, disk_gb=1), nodes[3]))
    assert [await statements(1.0), await statements(1.0)] == [2, 1]


async def test_what_was_recommended_and_not_claimed_is_free_again(db: Database) -> None:
    clock = Clock()
    hosts = HostPicture(db, clock, ComputeSettings())
    await add_host(db, "h1", vcpus=1)
    # A mark long ago: only that it was given away makes it looked at again.
    await db.write(lambda tx: tx.execute(sa.update(compute_nodes).values(changed=1.0)))
    assert placed(await hosts.current(0.0), request()).candidates
    hosts.picture.taken = dict.fromkeys(hosts.picture.taken, clock.seconds)
    clock.seconds += 2.0
    assert not placed(await hosts.current(1.0), request()).candidates
    assert placed(await hosts.current(0.0, true=True), request()).candidates
    hosts.picture.taken = dict.fromkeys(hosts.picture.taken, clock.seconds)
    clock.seconds += host_picture.UNCLAIMED
    assert placed(await hosts.current(1.0), request()).candidates


async def test_a_build_that_came_and_went_between_two_looks_does_not_count_on(db: Database) -> None:
    clock = Clock()
    hosts = HostPicture(db, clock, ComputeSettings())
    one = await add_host(db, "h1", vcpus=64)
    one_at_a_time = rules("IoOpsFilter", max_io_ops_per_host=1)
    for _ in range(3):
        # No operation is open at either look: what the database says has not changed, and yet the host was taken.
        assert placed(await hosts.current(1.0), request(), one_at_a_time).candidates
        assert not placed(await hosts.current(1.0), request(), one_at_a_time).candidates
        await db.write(lambda tx: claims.claim(tx, Needs(vcpus=1, memory_mb=1, disk_gb=1), one))
        clock.seconds += 2.0
    assert seen(await hosts.current(1.0)) == await fresh(db)


async def test_nobody_is_refused_for_what_was_only_recommended_to_another(db: Database) -> None:
    class Ticking(World):
        ticks = 0.0

        def monotonic(self) -> float:
            self.ticks += 0.001
            return self.ticks

    hosts = HostPicture(db, Ticking(), ComputeSettings())
    await add_host(db, "h1", vcpus=1)

    async def ask() -> bool:
        return bool(placed(await hosts.current(0.0, true=True), request()).candidates)

    # All have asked before any of them is answered: none has seen the others' answers.
    async with hosts._lock:
        asked = [asyncio.ensure_future(ask()) for _ in range(3)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [True] * 3


async def test_a_full_read_makes_up_for_a_missed_mark(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_picture, "PIECE", 2)
    clock = Clock()
    hosts = HostPicture(db, clock, ComputeSettings())
    for number in range(5):
        await add_host(db, f"h{number}")
    await hosts.current(0.0)
    await db.write(lambda tx: tx.execute(sa.update(compute_nodes).values(vcpus_used=3, changed=1.0)))
    clock.seconds += 2.0
    assert seen(await hosts.current(1.0)) != await fresh(db)
    clock.seconds += host_picture.FULL_READ
    assert seen(await hosts.current(1.0)) == await fresh(db)


async def test_a_ratio_that_is_set_counts_at_once_and_an_initial_one_only_for_new_hosts(db: Database) -> None:
    async def most() -> tuple[int, int]:
        async def work(tx: Tx) -> Any:
            return (await tx.execute(sa.select(compute_nodes.c.vcpus_max, compute_nodes.c.memory_mb_max))).one()

        row = await db.read(work)
        return row.vcpus_max, row.memory_mb_max

    initial = Allocation(initial_cpu_ratio=4.0, initial_ram_ratio=1.0, reserved_memory_mb=96, reserved_cpus=1)
    await add_host(db, "h1", initial)
    assert await most() == (28, 4000)
    await add_host(db, "h1", Allocation(initial_cpu_ratio=9.0, reserved_memory_mb=96))
    assert await most() == (32, 4000)
    await add_host(db, "h1", Allocation(cpu_ratio=2.0, ram_ratio=1.5, reserved_memory_mb=96))
    assert await most() == (16, 6000)
    await add_host(db, "h1", Allocation(reserved_memory_mb=96))
    assert await most() == (16, 6000)


async def test_a_hosts_report_puts_right_what_does_not_add_up(db: Database) -> None:
    node_id = await add_host(db, "h1")
    held = {"vcpus": 0, "memory_mb": 64, "disk_gb": 3, "resources": {"CUSTOM_GPU": 2}}
    rows = [
        values("a", host="h1", node="h1", claimed=True, vcpus=2, memory_mb=512, root_gb=1, swap_mb=1025),
        values("b", host="h1", node="h1", claimed=True, claim=held),
        values("c", host="h1", node="h1", claimed=False),
        values("d", host="h1", node="h1", claimed=True, deleted=4),
    ]

    async def insert(tx: Tx) -> None:
        for row in rows:
            await tx.execute(sa.insert(instances).values(row))
        await tx.execute(sa.update(compute_nodes).values(vcpus_used=7, running_vms=9))

    await db.write(insert)
    await add_host(db, "h1")
    shown = await db.read(lambda tx: claims.held_on(tx, ["h1"]))
    assert dataclasses.asdict(shown["h1", "h1"]) == {
        "running_vms": 2, "vcpus_used": 2, "memory_mb_used": 576, "local_gb_used": 6, "resources": {"CUSTOM_GPU": 2},
    }  # fmt: skip
    assert (await fresh(db))[0][4:8] == (2, 576, 2, {"CUSTOM_GPU": (2, 2)})
    assert not await db.write(
        lambda tx: claims.claim(tx, Needs(vcpus=1, memory_mb=1, disk_gb=1, resources={"CUSTOM_GPU": 1}), node_id)
    )
    assert (await fresh(db))[0][4:8] == (2, 576, 2, {"CUSTOM_GPU": (2, 2)})
