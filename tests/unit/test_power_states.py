"""Power states that hosts report every so often are looked at together; what a host says at its start comes at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, Message, PowerReport, ServerQuestion
from kilonova.compute import states
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.reconcile import power_state
from kilonova.reconcile.power_state import PowerStates
from kilonova.reconcile.running_deleted import RunningDeleted
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.world import World
from tests.support import server_rows

ON, OFF = 1, 4


class Scene:
    """One conductor's power states, and hosts that can be asked."""

    def __init__(self, db: Database, bus: MemoryBus) -> None:
        self.db, self.bus = db, bus
        rt = Runtime(world=World(1), db=db, bus=bus, images=StaticImages(), image_token=no_token,
                     settings=ComputeSettings())  # fmt: skip
        self.states = PowerStates(rt, cast(RunningDeleted, None))

    async def host(self, name: str, **guests: int) -> None:
        """Asked, it answers for servers of these names."""
        await server_rows.add_service(self.db, name, incarnation="i")

        async def answer(message: Message) -> Answer:
            assert isinstance(message, ServerQuestion)
            server = await server_rows.get(self.db, message.server_uuid)
            return Answer(data={"power_state": guests[server.display_name]})

        await self.bus.listen(f"agent.{name}", answer)

    async def routine(self, host: str, states: dict[str, int], incarnation: str = "i") -> None:
        report = PowerReport(host=host, incarnation=incarnation, states=states, complete=True, routine=True)
        assert await self.states.on_report(report) == []

    async def state(self, uuid: str) -> tuple[str, int]:
        server = await server_rows.get(self.db, uuid)
        return server.vm_state, server.power_state


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        db = Database(f"sqlite:///{tmp_path}/compute.sqlite", synchronous="OFF")
        stack.push_async_callback(db.close)
        await create_all(db)
        bus = MemoryBus()
        await bus.start()
        stack.push_async_callback(bus.close)
        yield Scene(db, bus)


async def test_reports_of_many_hosts_cost_no_more_statements_than_one(scene: Scene) -> None:
    names = [f"host-{number}" for number in range(40)]
    for name in names:
        await scene.host(name)
    # Each has a guest that is as it should be.
    servers = {name: await server_rows.add(scene.db, host=name, power_state=ON) for name in names}
    counts = []
    for some in (names[:1], names):
        sent: list[str] = []
        for name in some:
            await scene.routine(name, {servers[name]: ON})
        scene.db.on_statement = sent.append
        assert await scene.states.look() == []
        counts.append(len(sent))
    assert counts[0] == counts[1] > 0


async def test_each_host_of_those_looked_at_together_has_its_say(scene: Scene) -> None:
    off = await server_rows.add(scene.db, "off", host="host-1", power_state=ON)
    missing = await server_rows.add(scene.db, "missing", host="host-2", power_state=ON)
    well = await server_rows.add(scene.db, "well", host="host-2", power_state=ON)
    doubted = await server_rows.add(scene.db, "doubted", host="host-3", power_state=ON)
    unwanted = await server_rows.add(scene.db, "unwanted", host="host-4", vm_state=states.STOPPED, power_state=OFF)
    await scene.host("host-1", off=OFF)
    await scene.host("host-2", missing=states.POWER_NOSTATE)
    await scene.host("host-3", doubted=OFF)
    await scene.host("host-4", unwanted=ON)
    await scene.routine("host-1", {off: OFF})
    await scene.routine("host-2", {well: ON})
    await scene.routine("host-3", {doubted: OFF}, incarnation="one that has not said what its host is")
    await scene.routine("host-4", {unwanted: ON})
    started = await scene.states.look()
    assert await scene.state(off) == (states.STOPPED, OFF)
    assert await scene.state(missing) == (states.ACTIVE, states.POWER_NOSTATE)
    assert await scene.state(well) == (states.ACTIVE, ON)
    assert await scene.state(doubted) == (states.ACTIVE, ON)
    server = await server_rows.get(scene.db, unwanted)
    assert (started, server.task_state) == ([server.operation_id], states.POWERING_OFF)


async def test_they_are_looked_at_without_being_asked_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_state, "GATHERED", 0.01)
    await scene.host("host-1", vm=ON)
    woken: asyncio.Queue[Sequence[int]] = asyncio.Queue()
    loop = asyncio.create_task(scene.states.loop(woken.put_nowait))
    try:
        uuid = await server_rows.add(scene.db, "vm", vm_state=states.STOPPED, power_state=OFF)
        await scene.routine("host-1", {uuid: ON})
        (operation_id,) = await asyncio.wait_for(woken.get(), 60)
        assert (await server_rows.get(scene.db, uuid)).operation_id == operation_id
    finally:
        loop.cancel()
