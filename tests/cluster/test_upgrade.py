"""From one release to the next, one revision of the schema apart, while clients make and delete servers.

Roles of both run side by side (docs/operations.md). No request fails, no operation is lost, and nothing is left over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Member, make_cluster
from tests.support.load import Load, ready, server
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker
from tests.support.releases import COLUMN, following, previous

pytestmark = pytest.mark.timeout(600)

CLIENTS = 6
OPTIONS = {"DEFAULT": {"report_interval": 1, "service_down_time": 60}}


@pytest.fixture
def cluster(mariadb: MariaDB, broker: Broker, tmp_path: Path) -> Iterator[Cluster]:
    """All of the release before."""
    counts = {"api": 2, "conductor": 2, "scheduler": 1, "compute": 2}
    source = previous(tmp_path / "previous")
    with make_cluster(mariadb, broker, counts=counts, hosts=2, options=OPTIONS, source=source) as made:
        yield made


@pytest.fixture
async def load(cluster: Cluster) -> AsyncIterator[Load]:
    async with ready(cluster) as made:
        yield made


@dataclass(kw_only=True)
class Users:
    """Each makes a server, waits until it runs, deletes it, waits until it is gone, and begins anew."""

    load: Load
    rounds: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, number: int) -> None:
        while not self.ended.is_set():
            made = await self.load.ask("POST", "/servers", server(f"u{number}"))
            assert made.status_code == 202, made.text
            path = f"/servers/{made.json()['server']['id']}"
            while True:
                shown = await self.load.ask("GET", path)
                assert shown.status_code == 200, shown.text
                found = shown.json()["server"]
                assert found["status"] in ("BUILD", "ACTIVE"), (found.get("fault"), found)
                if found["status"] == "ACTIVE" and found["OS-EXT-STS:task_state"] is None:
                    break
                await asyncio.sleep(0.1)
            deleted = await self.load.ask("DELETE", path)
            assert deleted.status_code == 204, deleted.text
            while (shown := await self.load.ask("GET", path)).status_code != 404:
                assert shown.status_code == 200, shown.text
                await asyncio.sleep(0.1)
            self.rounds += 1

    async def more(self) -> None:
        """Until each has been through whatever is the case by now."""
        before = self.rounds
        while self.rounds < before + 3 * CLIENTS:
            await asyncio.sleep(0.1)


async def replace(cluster: Cluster, member: Member, source: Path) -> None:
    """In its place: the same host name, configuration and state."""
    await asyncio.to_thread(cluster.end, member)
    member.source = source
    await asyncio.to_thread(cluster.start, member)


async def upgrade(cluster: Cluster, load: Load, users: Users, new: Path, revision: str) -> None:
    old = {role: cluster.of(role) for role in ("api", "conductor", "scheduler", "compute")}
    before = old["api"][0].source
    await users.more()

    # A new role does not begin before the schema is there; old ones go on on the new schema, also from a new start.
    cluster.source = new
    too_early = cluster.add("conductor")
    with pytest.raises(RuntimeError, match="run 'nova-manage db sync'"):
        await asyncio.to_thread(cluster.start, too_early)
    await asyncio.to_thread(cluster.manage, "db", "sync")
    assert (await asyncio.to_thread(cluster.manage, "db", "version")).strip() == revision
    await users.more()
    for role in ("conductor", "scheduler"):
        await replace(cluster, old[role][0], before)
    await users.more()

    # Side by side.
    added = [cluster.add(role) for role in ("api", "api", "scheduler")]
    await asyncio.to_thread(cluster.start, too_early, *added)
    load.apis += [member for member in added if member.port]
    await users.more()
    await replace(cluster, old["compute"][0], new)
    await users.more()

    # The old ones go, the API's first out of the balancer.
    for member in old["api"]:
        load.apis.remove(member)
    await users.more()
    for member in (*old["api"], *old["conductor"], *old["scheduler"]):
        await asyncio.to_thread(cluster.end, member)
        await users.more()
    await replace(cluster, old["compute"][1], new)
    await users.more()


async def test_an_upgrade_under_load_fails_no_request_and_loses_nothing(
    cluster: Cluster, load: Load, tmp_path: Path
) -> None:
    new, revision = following(tmp_path / "following")
    users = Users(load=load)
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(users.live(number))
        await upgrade(cluster, load, users, new, revision)
        users.ended.set()
    print(f"{users.rounds} servers made and deleted")

    rounds = str(users.rounds)
    kinds = "SELECT kind, state, COUNT(*) FROM instance_actions GROUP BY kind, state ORDER BY kind"
    assert cluster.query(kinds) == [["boot", "done", rounds], ["delete", "done", rounds]]
    used = "SELECT SUM(vcpus_used), SUM(memory_mb_used), SUM(running_vms), COUNT(*) FROM compute_nodes"
    assert cluster.query(used) == [["0", "0", "0", "4"]]
    assert cluster.query("SELECT SUM(instances), SUM(cores) FROM quota_usages") == [["0", "0"]]
    assert cluster.query("SELECT COUNT(*) FROM tombstones") == [["0"]]
    made_by = {row[0]: int(row[1]) for row in cluster.query(f"SELECT {COLUMN}, COUNT(*) FROM instances GROUP BY 1")}
    assert sum(made_by.values()) == users.rounds
    # Found by the migration; made by old roles on the new schema; made by new ones.
    assert set(made_by) == {"before", "NULL", "next"}
