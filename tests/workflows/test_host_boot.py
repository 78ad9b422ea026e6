"""What becomes of guests when their host's machine is booted, and of those that change by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from kilonova.agent.agent import Agent
from kilonova.agent.driver import PowerState
from kilonova.agent.journal import Journal
from kilonova.compute.servers import boot, power
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import instance_types, operations
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import TestCloud, make_cloud

OWNER = RequestContext(user_id="u", project_id="p", roles=frozenset({"member"}), request_id="req-1")


async def booted(cloud: TestCloud) -> Server:
    async def flavor(tx: Tx) -> None:
        values = {"flavorid": "1", "name": "m1", "vcpus": 1, "memory_mb": 64, "root_gb": 1, "extra_specs": {}}
        await tx.execute(sa.insert(instance_types).values(**values, created_at=cloud.rt.world.now()))

    await cloud.rt.db.write(flavor)
    cloud.images.add("image")
    request = boot.BootRequest(name="a", image_ref="image", flavor_ref="1", networks="none")
    created = await boot.create(cloud.rt, OWNER, request)
    return await until(cloud, created.uuids[0], lambda server: server.vm_state == "active")


async def until(cloud: TestCloud, uuid: str, true: Callable[[Server], bool]) -> Server:
    async with asyncio.timeout(30):
        while True:
            server = await cloud.rt.db.read(lambda tx: servers.get(tx, uuid))
            if server is not None and server.operation_id is None and true(server):
                return server
            await asyncio.sleep(0.02)


async def machine_boots(cloud: TestCloud, journal: Journal) -> Callable[[], Awaitable[None]]:
    """The host's machine goes down and comes up again with its guests off; returns how to stop the new agent."""
    host = cloud.hosts["host-1"]
    await host.agent.stop()
    for guest in await host.driver.guests():
        await host.driver.guest_changes(guest.uuid, PowerState.SHUTDOWN)
    agent = Agent(
        host="host-1", driver=host.driver, bus=cloud.rt.bus, journal=journal, world=cloud.rt.world,
        images=cloud.images, boot_id="another",
    )  # fmt: skip
    await agent.start()
    return agent.stop


@pytest.mark.parametrize(("resume", "state", "power_state"), [(True, "active", 1), (False, "stopped", 4)])
async def test_guests_of_a_booted_host_are_started_where_configured(
    tmp_path: Path, resume: bool, state: str, power_state: int
) -> None:
    settings = ComputeSettings(resume_guests_state_on_host_boot=resume)
    async with make_cloud(tmp_path, settings=settings) as cloud:
        server = await booted(cloud)
        journal = Journal(tmp_path / "journal2.sqlite")
        await journal.start()
        stop = await machine_boots(cloud, journal)
        after = await until(cloud, server.uuid, lambda s: s.generation > server.generation)
        assert (after.vm_state, after.power_state) == (state, power_state)
        assert await cloud.hosts["host-1"].driver.power_state(server.uuid) == power_state
        await stop()
        await journal.close()


async def test_an_agent_that_starts_anew_on_the_same_boot_starts_nothing(tmp_path: Path) -> None:
    settings = ComputeSettings(resume_guests_state_on_host_boot=True)
    async with make_cloud(tmp_path, settings=settings) as cloud:
        server = await booted(cloud)
        agent = cloud.hosts["host-1"].agent
        await agent.stop()
        await agent.start()
        await asyncio.sleep(0.5)
        async with asyncio.timeout(10):
            kinds = await cloud.rt.db.read(lambda tx: tx.scalars(sa.select(operations.c.kind)))
        assert list(kinds) == ["boot"]
        assert await cloud.hosts["host-1"].driver.power_state(server.uuid) == 1


async def test_a_guest_that_powers_off_is_shown_as_stopped_and_can_be_started(tmp_path: Path) -> None:
    async with make_cloud(tmp_path) as cloud:
        server = await booted(cloud)
        await cloud.hosts["host-1"].driver.guest_changes(server.uuid, PowerState.SHUTDOWN)
        stopped = await until(cloud, server.uuid, lambda s: s.vm_state == "stopped")
        await power.start(cloud.rt, OWNER, stopped)
        await until(cloud, server.uuid, lambda s: s.vm_state == "active" and s.power_state == 1)


async def test_a_guest_that_runs_though_its_server_is_stopped_is_stopped(tmp_path: Path) -> None:
    async with make_cloud(tmp_path) as cloud:
        server = await booted(cloud)
        await power.stop(cloud.rt, OWNER, server)
        await until(cloud, server.uuid, lambda s: s.vm_state == "stopped")
        driver = cloud.hosts["host-1"].driver
        await driver.guest_changes(server.uuid, PowerState.RUNNING)
        async with asyncio.timeout(30):
            while await driver.power_state(server.uuid) != PowerState.SHUTDOWN:
                await asyncio.sleep(0.02)
        await until(cloud, server.uuid, lambda s: s.vm_state == "stopped" and s.power_state == 4)
