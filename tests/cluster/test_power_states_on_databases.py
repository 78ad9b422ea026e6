"""A host is asked what its guest does, and the answer comes when the server has gone on: it counts for nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import pytest

from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, Message, PowerReport
from kilonova.compute import states
from kilonova.db import servers
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.db.tables import instances
from kilonova.reconcile.power_state import PowerStates
from kilonova.reconcile.running_deleted import RunningDeleted
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.world import World
from tests.support import server_rows
from tests.support.databases import DatabaseServer

OFF = 4


class Host:
    """Answers that its guest is off, when it is let."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, message: Message) -> Answer:
        self.asked.set()
        await self.go_on.wait()
        return Answer(data={"power_state": OFF})


class Scene:
    """Two conductors' connections; one of the conductors has a report of the host to look into."""

    def __init__(self, mine: Database, other: Database, bus: MemoryBus) -> None:
        rt = Runtime(world=World(), db=mine, bus=bus, images=StaticImages(), image_token=no_token,
                     settings=ComputeSettings())  # fmt: skip
        # Of servers that are deleted, and here none is.
        self.states = PowerStates(rt, cast(RunningDeleted, None))
        self.other, self.host = other, Host()

    async def report(self, uuid: str) -> list[int]:
        return await self.states.on_report(PowerReport(host="host-1", incarnation="i", states={uuid: OFF}))


@pytest.fixture
async def scene(database_server: DatabaseServer) -> AsyncIterator[Scene]:
    url = database_server.new_database()
    async with contextlib.AsyncExitStack() as stack:
        mine, other = Database(url), Database(url)
        stack.push_async_callback(mine.close)
        stack.push_async_callback(other.close)
        await create_all(mine)
        await server_rows.add_service(mine, incarnation="i")
        bus = MemoryBus()
        await bus.start()
        stack.push_async_callback(bus.close)
        made = Scene(mine, other, bus)
        await bus.listen("agent.host-1", made.host)
        yield made


async def test_an_operation_that_came_and_went_meanwhile_is_not_undone(scene: Scene) -> None:
    uuid = await server_rows.add(scene.other, vm_state=states.STOPPED, power_state=1)
    looked = asyncio.create_task(scene.report(uuid))
    await asyncio.wait_for(scene.host.asked.wait(), 30)
    # The other conductor has run a start from its first transaction to its last.
    on = {"vm_state": states.ACTIVE, "power_state": 1, "generation": instances.c.generation + 1}
    assert await scene.other.write(lambda tx: servers.update(tx, uuid, **on))
    scene.host.go_on.set()
    assert await looked == []
    server = await server_rows.get(scene.other, uuid)
    assert (server.vm_state, server.power_state, server.generation) == (states.ACTIVE, 1, 1)


async def test_a_guest_that_went_off_by_itself_is_recorded(scene: Scene) -> None:
    uuid = await server_rows.add(scene.other, vm_state=states.ACTIVE, power_state=1)
    scene.host.go_on.set()
    assert await scene.report(uuid) == []
    server = await server_rows.get(scene.other, uuid)
    assert (server.vm_state, server.power_state, server.generation) == (states.STOPPED, OFF, 1)
