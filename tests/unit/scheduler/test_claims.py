"""Claims of a node and of a group's places together: all of it or nothing."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.bus.memory import MemoryBus
from kilonova.compute import aggregates, claims
from kilonova.compute.needs import Needs, read_needs
from kilonova.conductor.host_picture import HostPicture
from kilonova.db import server_groups
from kilonova.db.engine import Database, Tx
from kilonova.db.server_groups import ServerGroup
from kilonova.db.tables import compute_nodes
from kilonova.errors import Invalid
from kilonova.runtime import Runtime
from kilonova.scheduler.request import Candidate
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.world import World
from tests.support.hosts import placed, request
from tests.unit.scheduler.test_host_picture import add_host, db, fresh

__all__ = ["db"]

ONE = Needs(vcpus=1, memory_mb=1, disk_gb=1)
NOTHING = (0, 0, 0, {"CUSTOM_GPU": (2, 0)})


async def add_group(db: Database, policy: str, **rules: int) -> ServerGroup:
    values = {
        "uuid": World().uuid(), "project_id": "p", "user_id": "u", "name": policy, "policy": policy, "rules": rules,
        "created_at": World().now(),
    }  # fmt: skip
    return await db.write(lambda tx: server_groups.insert(tx, values))


async def members(db: Database, group: ServerGroup) -> dict[str, int]:
    return await db.read(lambda tx: server_groups.hosts(tx, group.id))


async def test_what_does_not_fit_takes_nothing_and_no_place_in_the_group(db: Database) -> None:
    node_id = await add_host(db, "h1")
    group = await add_group(db, "anti-affinity")

    async def take(needs: Needs, on: ServerGroup | None = group) -> bool:
        return await db.write(lambda tx: claims.take(tx, needs, node_id, on, "h1"))

    for needs in (
        Needs(vcpus=9, memory_mb=1, disk_gb=1),
        Needs(vcpus=1, memory_mb=4097, disk_gb=1),
        Needs(vcpus=1, memory_mb=1, disk_gb=101),
        Needs(vcpus=1, memory_mb=1, disk_gb=1, resources={"CUSTOM_GPU": 3}),
        Needs(vcpus=1, memory_mb=1, disk_gb=1, resources={"CUSTOM_GPU": 1, "CUSTOM_NONE": 1}),
    ):
        assert not await take(needs)
        assert await members(db, group) == {}
        assert (await fresh(db))[0][4:8] == NOTHING
    assert await take(ONE)
    assert await members(db, group) == {"h1": 1}
    assert not await take(ONE)
    assert (await fresh(db))[0][4:8] == (1, 1, 1, {"CUSTOM_GPU": (2, 0)})
    assert await take(ONE, None)


async def test_policies_decide_about_places(db: Database) -> None:
    async def join(group: ServerGroup, host: str) -> bool:
        return await db.write(lambda tx: claims.join(tx, group, host))

    async def leave(tx: Tx) -> None:
        await claims.leave(tx, together, "h1")

    two = await add_group(db, "anti-affinity", max_server_per_host=2)
    assert [await join(two, host) for host in ("h1", "h1", "h1", "h2")] == [True, True, False, True]
    together = await add_group(db, "affinity")
    assert [await join(together, host) for host in ("h1", "h2", "h1")] == [True, False, True]
    await db.write(leave)
    assert not await join(together, "h2")
    await db.write(leave)
    assert await join(together, "h2")
    soft = await add_group(db, "soft-anti-affinity")
    assert [await join(soft, host) for host in ("h1", "h1", "h2")] == [True, True, True]
    assert await members(db, soft) == {"h1": 2, "h2": 1}


def test_flavors_and_images_say_what_is_needed() -> None:
    needs = read_needs(
        4,
        2048,
        10,
        {
            "resources:VCPU": "0", "resources:MEMORY_MB": "512", "resources:CUSTOM_GPU": "1",
            "resources2:CUSTOM_GPU": "2", "trait:CUSTOM_A": "required", "trait1:HW_CPU_X86_AVX": "forbidden",
            "hw:cpu_policy": "shared",
        },
        {"trait:CUSTOM_B": "required", "hw_disk_bus": "scsi"},
    )  # fmt: skip
    assert (needs.vcpus, needs.memory_mb, needs.disk_gb, needs.resources) == (0, 512, 10, {"CUSTOM_GPU": 3})
    assert needs.required_traits == {"CUSTOM_A", "CUSTOM_B"}
    assert needs.forbidden_traits == {"HW_CPU_X86_AVX"}


@pytest.mark.parametrize(
    "specs",
    [
        {"resources:VGPU": "1"},
        {"resources1:VCPU": "1"},
        {"resources:CUSTOM_A": "-1"},
        {"trait:CUSTOM_A": "wanted"},
        {"resources1:CUSTOM_A": "1", "resources2:CUSTOM_A": "1", "group_policy": "isolate"},
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(specs: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="cannot be honoured"):
        read_needs(1, 1, 1, specs, {})


def test_a_trait_cannot_be_both_required_and_forbidden() -> None:
    with pytest.raises(Invalid, match="both required and forbidden"):
        read_needs(1, 1, 1, {"trait:CUSTOM_A": "forbidden"}, {"trait:CUSTOM_A": "required"})


async def test_a_host_whose_zone_changed_since_it_was_decided_on_is_not_claimed(db: Database) -> None:
    """By whatever path: it joins a zone, leaves it, its aggregate gets another one."""
    node_id = await add_host(db, "h1")
    rt = Runtime(
        world=World(), db=db, bus=MemoryBus(), images=StaticImages(), image_token=no_token, settings=ComputeSettings()
    )
    picture = HostPicture(db, World(), rt.settings)
    group = await add_group(db, "anti-affinity")

    async def decide() -> Candidate:
        (candidate,) = placed(await picture.current(0.0), request()).candidates
        return candidate

    async def claims_it(candidate: Candidate) -> bool:
        def take(tx: Tx) -> Any:
            return claims.take(tx, ONE, node_id, group, "h1", candidate.aggregates_generation)

        return await db.write(take)

    async def moved(candidate: Candidate) -> bool:
        return await db.read(lambda tx: claims.moved(tx, node_id, candidate.aggregates_generation))

    before = await decide()
    assert before.availability_zone == "nova"
    east = await aggregates.create(rt, "east", "east")
    await aggregates.add_host(rt, east.id, "h1")
    assert not await claims_it(before)
    assert await moved(before)
    assert await members(db, group) == {}
    in_east = await decide()
    assert in_east.availability_zone == "east"
    await aggregates.update(rt, east.id, name=None, metadata={"availability_zone": "west"})
    assert not await claims_it(in_east)
    in_west = await decide()
    await aggregates.remove_host(rt, east.id, "h1")
    assert not await claims_it(in_west)
    back = await decide()
    assert (back.availability_zone, await moved(back)) == ("nova", False)
    assert await claims_it(back)


async def test_a_host_that_left_and_came_back_can_be_claimed(db: Database) -> None:
    node_id = await add_host(db, "h1")
    rt = Runtime(
        world=World(), db=db, bus=MemoryBus(), images=StaticImages(), image_token=no_token, settings=ComputeSettings()
    )
    picture = HostPicture(db, World(), rt.settings)
    some = await aggregates.create(rt, "some", None)
    await aggregates.add_host(rt, some.id, "h1")
    await aggregates.remove_host(rt, some.id, "h1")
    assert placed(await picture.current(0.0), request()).candidates[0].aggregates_generation == 2
    await db.write(lambda tx: tx.execute(sa.delete(compute_nodes)))
    again = await add_host(db, "h1")
    assert again != node_id
    (candidate,) = placed(await picture.current(0.0), request()).candidates
    assert candidate.node_id == again
    assert await db.write(lambda tx: claims.take(tx, ONE, again, None, "h1", candidate.aggregates_generation))
