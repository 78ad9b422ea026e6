"""A short chaos run on its own servers; the long one is `make chaos` (docs/reliability.md)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from kilonova.agent.sim.state import SimGuest, SimState
from tests.support.chaos.plan import Plan, Report, short
from tests.support.chaos.run import chaos, stage, tell
from tests.support.chaos.scene import Scene
from tests.support.cluster import Cluster, durable_servers
from tests.support.networking import NETWORK
from tests.support.stand_ins import SERVICE_TOKEN

pytestmark = pytest.mark.timeout(900)

SEED = int(os.environ.get("KILONOVA_SEED", "1"))
NOBODY = "99999999-0000-4000-8000-000000000000"

Undo = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="module")
def ended() -> Iterator[tuple[Cluster, Report]]:
    """What a run came to; its processes go on."""
    # They are killed here, and others' tests want theirs alive.
    with durable_servers() as (mariadb, broker):
        plan = short(SEED)
        with stage(mariadb, broker, plan) as cluster:
            report = asyncio.run(chaos(cluster, plan))
            print(report)
            yield cluster, report


def test_nothing_is_lost_doubled_or_left_over_whatever_breaks(ended: tuple[Cluster, Report]) -> None:
    _, report = ended
    assert not report.wrong, str(report)
    assert report.asked["create: 202"] == report.plan.servers
    assert len(report.injected) >= 5
    assert {"lost", "doubled", "late"} <= report.messages.keys()
    assert report.ports > 0


ROWS = {
    "allocations of": ("compute_nodes SET vcpus_used = vcpus_used {} 1", "+", "-"),
    "quota counts": ("quota_usages SET cores = cores {} 1", "+", "-"),
    "slot taken": ("instances SET task_state = {} WHERE uuid = '{server}'", "'rebuilding'", "NULL"),
    "on []": ("instances SET claimed = {} WHERE uuid = '{gone}'", "1", "0"),
    "ready, owner": ("instance_actions SET state = {} WHERE id = {operation}", "'ready'", "'done'"),
    "has owner": ("instance_actions SET owner = {} WHERE id = {operation}", "'somebody'", "NULL"),
    "of steps": ("instance_actions_events SET name = {} WHERE id = {event}", "'other'", "'{step}'"),
    "expected": ("instances SET vm_state = {} WHERE uuid = '{server}'", "'stopped'", "'active'"),
    "recorded": ("instances SET power_state = {} WHERE uuid = '{server}'", "4", "1"),
}
"""By what the audit says: rows that are put wrong, and right again."""


class Planter:
    """Puts one thing wrong at a time in a cluster whose processes have ended, so that nothing mends it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.sql = partial(cluster.server.execute, database=cluster.database.rpartition("/")[2])
        ((server, operation, event, step),) = cluster.query(
            "SELECT i.uuid, a.id, e.id, e.name FROM instances i JOIN instance_actions a ON a.server_uuid = i.uuid"
            " JOIN instance_actions_events e ON e.operation_id = a.id WHERE i.vm_state = 'active' AND i.deleted = 0"
            " AND a.kind LIKE 'boot%' AND a.state = 'done' ORDER BY i.id, e.id DESC LIMIT 1"
        )
        ((gone,),) = cluster.query("SELECT uuid FROM instances WHERE deleted > 0 LIMIT 1")
        self.names = {"server": server, "operation": operation, "event": event, "step": step, "gone": gone}

    def rows(self, statement: str, wrong: str, right: str) -> Undo:
        def put(value: str) -> None:
            self.sql(f"UPDATE {statement.format(value, **self.names)}".replace("{step}", self.names["step"]))

        put(wrong)
        return partial(asyncio.to_thread, put, right)

    def row(self, insert: str, where: str) -> Undo:
        table = insert.split()[0]
        self.sql(f"INSERT INTO {insert.format(**self.names)}")
        return partial(asyncio.to_thread, self.sql, f"DELETE FROM {table} WHERE {where}")

    async def guest(self, **what: Any) -> Undo:
        """On a host, of a server that nobody knows."""
        member = self.cluster.of("compute")[0]
        host = f"{member.name}-001"

        @asynccontextmanager
        async def state() -> Any:
            made = SimState(self.cluster.directory / member.name / "agent/sim.sqlite")
            await made.start()
            try:
                yield made
            finally:
                await made.close()

        async def undo() -> None:
            async with state() as opened:
                await opened.forget(host, NOBODY)

        async with state() as opened:
            await opened.save(host, SimGuest(uuid=NOBODY, **what))
        return undo

    async def port(self, device: str) -> Undo:
        ports = f"http://{self.cluster.broker.place.address}:{self.cluster.identity_port}/v2.0/ports"
        http = httpx.AsyncClient(headers={"X-Auth-Token": SERVICE_TOKEN}, timeout=30)
        body = {"port": {"network_id": NETWORK, "project_id": "p", "device_id": device}}
        made = (await http.post(ports, json=body)).json()["port"]

        async def undo() -> None:
            await http.delete(f"{ports}/{made['id']}")
            await http.aclose()

        return undo


def test_the_audit_finds_each_thing_that_is_put_wrong(ended: tuple[Cluster, Report]) -> None:
    cluster, report = ended
    assert not report.wrong
    cluster.stop()
    asyncio.run(_plant(cluster, report.plan))


async def _plant(cluster: Cluster, plan: Plan) -> None:
    planter = Planter(cluster)
    scene = Scene(cluster)
    event = "instance_actions_events (operation_id, name, phase, attempt, epoch, started_at)"
    event += " VALUES ({operation}, 'more', 'do', 0, 0, NOW())"
    wrongs: dict[str, Callable[[], Awaitable[Undo]]] = {
        word: partial(asyncio.to_thread, planter.rows, *rows) for word, rows in ROWS.items()
    } | {
        "an event without end": partial(
            asyncio.to_thread, planter.row, event, "name = 'more'"
        ),
        "tombstones left": partial(
            asyncio.to_thread, planter.row,
            f"tombstones (host, server_uuid, operation_id, created_at) VALUES ('h', '{NOBODY}', 1, NOW())",
            "host = 'h'",
        ),
        f"{NOBODY} on compute1-001": partial(planter.guest, defined=True),
        f"{NOBODY} on compute1": partial(planter.guest, disks=True),
        f"of {NOBODY} is left": partial(planter.port, NOBODY),
        f"of {planter.names['gone']} is left": partial(planter.port, planter.names["gone"]),
    }  # fmt: skip
    try:
        assert await scene.wrong() == []
        for word, put_wrong in wrongs.items():
            undo = await put_wrong()
            found = await scene.wrong()
            assert any(word in each for each in found), (word, found)
            await undo()
            assert await scene.wrong() == [], word
        assert await scene.wrong(acknowledged={NOBODY}) == [f"acknowledged server {NOBODY} is lost"]
        there = planter.names["server"]
        assert await scene.wrong(deleted={there}) == [f"deleted server {there} is there"]
        # A reason of its own is none that was injected.
        statement = "instances SET vm_state = 'error', fault = {} WHERE uuid = '{server}'"
        for fault in ("Something else.", "Host 'compute9-001' does not answer."):
            planter.rows(statement, f"JSON_OBJECT('message', \"{fault}\")", "NULL")
            judged = Report(plan=plan)
            await tell(scene, judged)
            assert any(f"no injected reason: {there}: {fault}" in each for each in judged.wrong), judged.wrong
    finally:
        await scene.db.close()
