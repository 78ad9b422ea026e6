"""MariaDB Galera: one node at a time behind an address that moves, and, since nobody can rule it out, two at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.db import schema
from kilonova.db.engine import CommitUnknown, Database, Tx
from kilonova.db.tables import quota_usages
from kilonova.doctor import database as doctor
from kilonova.doctor.findings import Finding
from kilonova.doctor.site import of_files
from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import short
from tests.support.chaos.run import chaos
from tests.support.chaos.run import options as chaos_options
from tests.support.cluster import Cluster, make_cluster
from tests.support.galera import PROVIDER, Galera, make_galera
from tests.support.load import Load, exceed_quota, overfill, ready
from tests.support.rabbit import Broker

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("EVERY_DATABASE"), reason="of `make cluster`: a database of three nodes"),
    pytest.mark.skipif(
        not (PROVIDER.exists() and Path("/usr/bin/wsrep_sst_rsync").exists() and Path("/usr/bin/rsync").exists()),
        reason="Galera is not installed: scripts/setup.sh --cluster",
    ),
]
COUNTS = {"api": 2, "conductor": 2, "scheduler": 2, "compute": 2}
HOSTS = 5
VCPUS = 4
c = quota_usages.c


@pytest.fixture(scope="module")
def galera() -> Iterator[Galera]:
    with make_galera(3) as made:
        yield made


async def add(tx: Tx, project: str) -> None:
    await tx.execute(sa.insert(quota_usages).values(project_id=project))


async def one_more(tx: Tx) -> None:
    await tx.execute(sa.update(quota_usages).where(c.project_id == "a").values(instances=c.instances + 1))


async def counted(tx: Tx) -> int:
    return (await tx.execute(sa.select(c.instances).where(c.project_id == "a"))).scalar_one()


@pytest.fixture
async def url(galera: Galera) -> str:
    """Of a database with the schema, at the first node."""
    galera.move(galera.nodes[0])
    made = galera.new_database()
    db = Database(made)
    await schema.migrate(db)
    await db.write(lambda tx: add(tx, "a"))
    await db.close()
    return made


async def test_writers_at_several_nodes_lose_nothing_and_their_conflicts_are_tried_again(
    galera: Galera, url: str
) -> None:
    """The later one of two commits of the same row fails at COMMIT, with a deadlock's number."""
    dbs = [Database(galera.url_at(url, node)) for node in galera.nodes]
    tried, times = 0, 20

    async def work(tx: Tx) -> None:
        nonlocal tried
        tried += 1
        await one_more(tx)

    async def writer(db: Database) -> None:
        for _ in range(times):
            await db.write(work)

    try:
        await asyncio.gather(*(writer(db) for db in dbs))
        async with asyncio.timeout(30):
            while {await db.read(counted) for db in dbs} != {3 * times}:
                await asyncio.sleep(0.1)
        assert tried > 3 * times, "no two met"
    finally:
        for db in dbs:
            await db.close()


async def test_a_node_that_does_not_take_part_is_left_for_the_one_that_the_address_leads_to(
    galera: Galera, url: str
) -> None:
    db = Database(url)
    first, second = galera.nodes[:2]
    await db.write(one_more)
    first.execute("SET GLOBAL wsrep_reject_queries = ALL")
    try:
        writing = asyncio.create_task(db.write(one_more))
        await asyncio.sleep(0.5)
        assert not writing.done(), "it has not waited"
        galera.gate.target = second.port
        await writing
        assert await db.read(counted) == 2
    finally:
        first.execute("SET GLOBAL wsrep_reject_queries = NONE")
        galera.move(first)
        await db.close()


async def test_what_was_committed_survives_the_node_it_was_committed_at(galera: Galera, url: str) -> None:
    db = Database(url)
    first, second = galera.nodes[:2]
    done, unknown, stop = 0, 0, False

    async def writer() -> None:
        nonlocal done, unknown
        while not stop:
            try:
                await db.write(one_more)
                done += 1
            except CommitUnknown:
                unknown += 1
            except sqlalchemy.exc.DBAPIError:
                await asyncio.sleep(0.1)

    writers = [asyncio.create_task(writer()) for _ in range(4)]
    await asyncio.sleep(1.0)
    await asyncio.to_thread(first.kill)
    galera.move(second)
    before = done
    async with asyncio.timeout(60):
        while done < before + 10:
            await asyncio.sleep(0.1)
    stop = True
    await asyncio.gather(*writers)
    count = await db.read(counted)
    assert done <= count <= done + unknown
    await asyncio.to_thread(first.start)
    other = Database(galera.url_at(url, first))
    assert await other.read(counted) == count, "the node that was killed has not got what was committed since"
    await other.close()
    galera.move(first)
    await db.close()
    assert before > 0


async def test_doctor_says_whether_the_node_takes_part_and_what_to_do_if_not(
    galera: Galera, url: str, tmp_path: Path
) -> None:
    third = galera.nodes[2]
    config = tmp_path / "nova.conf"
    config.write_text(f"[database]\nconnection = {galera.url_at(url, third)}\n")

    async def looked() -> Finding:
        site, _ = of_files([config])
        assert site is not None
        found, _ = await doctor.look(site)
        (cluster,) = [each for each in found if each.check == "database: cluster"]
        return cluster

    async def becomes(result: str, said: str) -> Finding:
        async with asyncio.timeout(120):
            while (found := await looked()).result != result or said not in found.text:
                await asyncio.sleep(0.5)
        return found

    await becomes("ok", "Primary and Synced, one of 3")
    third.execute("SET GLOBAL wsrep_desync = ON")
    assert "wsrep_desync = OFF" in ((await becomes("warning", "Donor/Desynced")).fix or "")
    third.execute("SET GLOBAL wsrep_desync = OFF")
    await becomes("ok", "Synced")
    third.execute("SET GLOBAL wsrep_reject_queries = ALL")
    assert "wsrep_reject_queries" in ((await becomes("wrong", "1047")).fix or "")
    third.execute("SET GLOBAL wsrep_reject_queries = NONE")
    # As if its cable were out: the others go on without it.
    third.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'")
    assert "pc.bootstrap" in ((await becomes("wrong", "1047")).fix or "")
    third.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'")
    await becomes("ok", "one of 3")
    await asyncio.to_thread(galera.nodes[1].kill)
    await becomes("warning", "one of 2")
    await asyncio.to_thread(galera.nodes[1].start)
    await becomes("ok", "one of 3")


class Nodes(Faults):
    """The node in use is killed and the address is moved, as a balancer does it; then likewise the one after it."""

    async def run(self) -> None:
        galera = self.cluster.server
        assert isinstance(galera, Galera)
        for _ in range(2):
            await asyncio.sleep(self.plan.period)
            gone = galera.current
            after = galera.nodes[(galera.nodes.index(gone) + 1) % len(galera.nodes)]
            self.report.injected["node killed"] += 1
            await asyncio.to_thread(gone.kill)
            galera.move(after)
            await asyncio.sleep(self.plan.period)
            await asyncio.to_thread(gone.start)


def test_the_node_in_use_is_killed_while_servers_are_made(galera: Galera, broker: Broker) -> None:
    plan = replace(short(1), servers=60, seconds=40, period=6)
    with make_cluster(galera, broker, counts=COUNTS, hosts=HOSTS, options=chaos_options(plan)) as cluster:
        report = asyncio.run(chaos(cluster, plan, Nodes))
        print(report)
        assert not report.wrong, str(report)
        assert report.asked["create: 202"] == plan.servers
        assert report.injected == {"node killed": 2}


@pytest.fixture(scope="module")
def spread(galera: Galera, broker: Broker) -> Iterator[Cluster]:
    """The first process of each role writes to one node, the second one to another."""
    options = {"DEFAULT": {"initial_cpu_allocation_ratio": 1.0}, "sim": {"vcpus": VCPUS}}
    url = galera.new_database()
    urls = [galera.url_at(url, node) for node in galera.nodes[:2]]
    with make_cluster(
        galera, broker, counts=COUNTS, hosts=HOSTS, options=options, database=url, databases=urls
    ) as made:
        yield made


@pytest.fixture
async def load(spread: Cluster) -> AsyncIterator[Load]:
    async with ready(spread) as made:
        yield made
        await made.clear()


async def test_claims_at_two_nodes_fill_the_capacity_exactly(load: Load) -> None:
    await overfill(load, hosts=2 * HOSTS, vcpus=VCPUS, demand=60)


async def test_a_quota_at_two_nodes_is_not_exceeded(load: Load) -> None:
    await exceed_quota(load, 12)
