"""A backup that is made while servers come and go, and a deployment that goes on from it (docs/operations.md)."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kilonova.agent.sim.state import SimState
from tests.support.cluster import Cluster, make_cluster
from tests.support.load import Load, ready
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker

pytestmark = pytest.mark.timeout(400)

HOSTS = 3
OPTIONS = {"DEFAULT": {"report_interval": 1, "sync_power_state_interval": 5}}
ROWS = "SELECT uuid, vm_state FROM instances WHERE deleted = 0"


@pytest.fixture
def cluster(mariadb: MariaDB, broker: Broker) -> Iterator[Cluster]:
    counts = {"api": 1, "conductor": 2, "scheduler": 1, "compute": 1}
    with make_cluster(mariadb, broker, counts=counts, hosts=HOSTS, options=OPTIONS) as made:
        yield made


@pytest.fixture
async def load(cluster: Cluster) -> AsyncIterator[Load]:
    async with ready(cluster, clients=8) as made:
        yield made


async def guests(cluster: Cluster) -> set[str]:
    """Of all hosts, whoever knows them."""
    (agent,) = cluster.of("compute")
    state = SimState(cluster.directory / agent.name / "agent/sim.sqlite")
    await state.start()
    held = [await state.host(f"{agent.name}-{number:03d}") for number in range(1, HOSTS + 1)]
    await state.close()
    return {guest.uuid for host in held for guest in host.guests.values() if guest.defined}


def client(mariadb: MariaDB, program: str, *words: str) -> list[str]:
    """As the service's user over the network."""
    return [
        f"/usr/bin/{program}", "--no-defaults", "--host=127.0.0.1", f"--port={mariadb.port}",
        f"--user={mariadb.user}", f"--password={mariadb.password}", *words,
    ]  # fmt: skip


async def dump(mariadb: MariaDB, database: str, file: Path) -> None:
    with file.open("wb") as out:
        command = client(mariadb, "mariadb-dump", "--single-transaction", "--routines", database.rpartition("/")[2])
        process = await asyncio.create_subprocess_exec(*command, stdout=out)
        assert await process.wait() == 0


def restore(cluster: Cluster, mariadb: MariaDB, file: Path) -> str:
    """Load the backup into an empty database and have every role's nova.conf name that; what nova-manage said."""
    old, cluster.database = cluster.database, mariadb.new_database()
    with file.open("rb") as text:
        name = cluster.database.rpartition("/")[2]
        subprocess.run(client(mariadb, "mariadb", name), stdin=text, check=True, timeout=60)
    for member in cluster.members.values():
        member.config.write_text(member.config.read_text().replace(old, cluster.database))
    said = []
    for words in (["db", "sync"], ["db", "restored"]):
        command = [sys.executable, "-m", "kilonova.cli.manage", "--config-file", str(cluster.of("api")[0].config)]
        done = subprocess.run([*command, *words], check=True, timeout=60, capture_output=True, text=True)
        said.append(done.stdout)
    assert said[0] == ""
    return said[1]


def check_sums(cluster: Cluster) -> None:
    """What is counted in one place is what stands in another, as at one moment."""
    held = "SELECT COUNT(*) FROM instances WHERE claimed AND deleted = 0"
    assert cluster.query("SELECT SUM(running_vms), SUM(vcpus_used) FROM compute_nodes") == [cluster.query(held)[0] * 2]
    counted = cluster.query("SELECT instances FROM quota_usages")
    assert counted == cluster.query("SELECT COUNT(*) FROM instances WHERE deleted = 0")
    busy = "SELECT COUNT(*) FROM instances WHERE operation_id IS NOT NULL AND operation_id NOT IN"
    assert cluster.query(f"{busy} (SELECT id FROM instance_actions)") == [["0"]]


async def found_in_logs(cluster: Cluster, text: str, uuids: set[str]) -> None:
    """Until the conductors have said it of these servers."""
    while True:
        logs = "".join(member.log.read_text() for member in cluster.of("conductor"))
        lines = [line for line in logs.splitlines() if text in line]
        if uuids <= {uuid for line in lines for uuid in re.findall(r"[0-9a-f]{8}-[-0-9a-f]{27}", line)}:
            return
        await asyncio.sleep(0.5)


async def test_a_deployment_goes_on_from_a_backup_that_was_made_under_load(
    cluster: Cluster, load: Load, mariadb: MariaDB, tmp_path: Path
) -> None:
    kept = await load.create(6, "kept")
    gone = await load.create(4, "gone")
    await load.settled(10)

    # The backup, while servers are made.
    burst = asyncio.create_task(load.create(40, "burst"))
    while len(cluster.query(ROWS)) < 14:
        await asyncio.sleep(0.05)
    await dump(mariadb, cluster.database, tmp_path / "nova.sql")
    made = await burst
    late = await load.create(5, "late")
    await load.settled(55)

    # What the backup does not know: deletions, and work on servers that it knows.
    for answer in await load.together([("DELETE", f"/servers/{uuid}", None) for uuid in gone]):
        assert answer.status_code == 204
    reboot = {"reboot": {"type": "HARD"}}
    for answer in await load.together([("POST", f"/servers/{uuid}/action", reboot) for uuid in kept]):
        assert answer.status_code == 202
    await load.settled(51)
    before = await guests(cluster)
    assert before == {*kept, *made, *late}

    cluster.stop()
    said = restore(cluster, mariadb, tmp_path / "nova.sql")
    assert "instance_actions: numbers go on from 1000000" in said
    check_sums(cluster)
    known = {uuid for uuid, _ in cluster.query(ROWS)}
    assert {*kept, *gone} < known
    assert not known & set(late)
    for member in cluster.members.values():
        member.log.write_text("")
    cluster.start(*(member for member in cluster.members.values() if member.role != "compute"))
    cluster.start(*cluster.of("compute"))

    # What was under way in the backup is finished; what it does not know is told and left alone.
    found = {each["id"]: each for each in await load.settled(len(known))}
    assert {each["status"] for each in found.values()} == {"ACTIVE"}
    await found_in_logs(cluster, "host has a guest that it should not have", before - known)
    await found_in_logs(cluster, "server has no guest on its host", set(gone))
    for uuid in late:
        assert (await load.ask("GET", f"/servers/{uuid}")).status_code == 404
    for uuid in gone:
        while (await load.ask("GET", f"/servers/{uuid}")).json()["server"]["OS-EXT-STS:power_state"] != 0:
            await asyncio.sleep(0.2)
    assert (await guests(cluster)) >= before

    # Numbers that hosts have seen are not given again: what is made now is made, and what was changed since changes on.
    new = await load.create(40, "new")
    for answer in await load.together([("POST", f"/servers/{uuid}/action", reboot) for uuid in kept]):
        assert answer.status_code == 202
    found = {each["id"]: each for each in await load.settled(len(known) + 40)}
    assert {found[uuid]["status"] for uuid in (*new, *kept)} == {"ACTIVE"}
    assert set(new) <= await guests(cluster)
    for uuid in kept:
        actions = (await load.ask("GET", f"/servers/{uuid}/os-instance-actions")).json()["instanceActions"]
        assert [each["action"] for each in actions] == ["reboot", "create"]

    # The administrator's part: servers without guests are deleted like others.
    for answer in await load.together([("DELETE", f"/servers/{uuid}", None) for uuid in gone]):
        assert answer.status_code == 204
    await load.settled(len(known) + 40 - len(gone))
    check_sums(cluster)
    assert "agent.number_used_twice" not in "".join(member.log.read_text() for member in cluster.of("compute"))
