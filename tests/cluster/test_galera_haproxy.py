"""HAProxy before Galera, with deploy/haproxy/galera.cfg: it leads to one node, and nothing is lost when that goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

import pytest
import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.db import schema
from kilonova.db.engine import Database, Tx
from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import Report, short
from tests.support.chaos.run import chaos
from tests.support.chaos.run import options as chaos_options
from tests.support.cluster import make_cluster
from tests.support.galera import PROVIDER, Galera, Node, make_galera
from tests.support.haproxy import PROGRAM, Balanced, make_balanced
from tests.support.rabbit import Broker

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("EVERY_DATABASE"), reason="of `make cluster`: a database of three nodes"),
    pytest.mark.skipif(
        not (PROVIDER.exists() and PROGRAM.exists()),
        reason="Galera or HAProxy is not installed: scripts/setup.sh --cluster",
    ),
]
COUNTS = {"api": 2, "conductor": 2, "scheduler": 2, "compute": 2}


@pytest.fixture(scope="module")
def galera() -> Iterator[Galera]:
    with make_galera(3) as made:
        yield made


@pytest.fixture(scope="module")
def both(galera: Galera) -> Iterator[list[Balanced]]:
    """Two balancers."""
    with make_balanced(galera, balancers=2) as made:
        yield made


@contextlib.asynccontextmanager
async def database(balanced: Balanced) -> AsyncIterator[Database]:
    """With the schema."""
    db = Database(balanced.new_database())
    await schema.migrate(db)
    yield db
    await db.close()


async def node(tx: Tx) -> int:
    return int((await tx.execute(sa.text("SELECT @@port"))).scalar_one())


async def everybody_is_at(number: int, nodes: Sequence[Node], kept: Sequence[Database]) -> None:
    """Until connections of before and new ones, by each balancer, are at this node."""
    wanted = nodes[number].port
    async with asyncio.timeout(180):
        while True:
            found = set()
            for old in kept:
                new = Database(old.url.render_as_string(hide_password=False))
                for db in (old, new):
                    try:
                        found.add(await db.read(node))
                    except sqlalchemy.exc.DBAPIError:
                        found.add(0)
                await new.close()
            if found == {wanted}:
                return
            await asyncio.sleep(0.5)


async def test_everybody_is_at_one_node_which_is_synced_and_stays_there(both: list[Balanced]) -> None:
    nodes = both[0].nodes
    first, second = nodes[:2]
    kept = [Database(balanced.new_database()) for balanced in both]
    await everybody_is_at(0, nodes, kept)
    first.execute("SET GLOBAL wsrep_desync = ON")
    await everybody_is_at(1, nodes, kept)
    first.execute("SET GLOBAL wsrep_desync = OFF")
    # Longer than a node has to be well to be taken in again.
    await asyncio.sleep(6)
    await everybody_is_at(1, nodes, kept)
    second.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'")
    await everybody_is_at(0, nodes, kept)
    second.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'")
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(second.is_synced):
            await asyncio.sleep(0.5)
    for db in kept:
        await db.close()


async def test_connections_that_the_balancer_ended_for_their_silence_are_replaced_unnoticed(galera: Galera) -> None:
    with make_balanced(galera, idle="2s") as (balanced,):
        async with database(balanced) as db:

            async def slow(tx: Tx) -> int:
                return int((await tx.execute(sa.text("SELECT SLEEP(0.2) + CONNECTION_ID()"))).scalar_one())

            before = set(await asyncio.gather(*(do(slow) for do in (db.read, db.write) for _ in range(4))))
            assert len(before) > 4
            await asyncio.sleep(5)
            after = set(await asyncio.gather(*(do(slow) for do in (db.read, db.write) for _ in range(4))))
            assert not before & after


class Nodes(Faults):
    """The node in use dies and is back after a while, out of use; then the one that is in use now hangs."""

    async def run(self) -> None:
        server = self.cluster.server
        assert isinstance(server, Balanced)
        for number in (0, 1):
            await asyncio.sleep(self.plan.period)
            gone = server.nodes[number]
            if number == 0:
                self.report.injected["node killed"] += 1
                await asyncio.to_thread(gone.kill)
                await asyncio.sleep(self.plan.period)
                await asyncio.to_thread(gone.start)
            else:
                self.report.injected["node hung"] += 1
                os.kill(gone.pid, signal.SIGSTOP)
                await asyncio.sleep(4 * self.plan.period)
                os.kill(gone.pid, signal.SIGCONT)


async def test_nothing_is_lost_when_nodes_die_and_hang_while_servers_are_made(
    both: list[Balanced], broker: Broker
) -> None:
    """The first process of each role goes by one balancer, the second one by the other."""
    plan = replace(short(1), servers=60, seconds=40, period=6)
    url = both[0].new_database()
    urls = [url, url.replace(f":{both[0].port}/", f":{both[1].port}/")]
    kept = [Database(each) for each in urls]
    # An address that does not move back leads where the tests before have left it.
    both[0].nodes[1].execute("SET GLOBAL wsrep_desync = ON")
    await everybody_is_at(0, both[0].nodes, kept)
    both[0].nodes[1].execute("SET GLOBAL wsrep_desync = OFF")

    def run() -> Report:
        options = chaos_options(plan)
        with make_cluster(
            both[0], broker, counts=COUNTS, hosts=5, options=options, database=url, databases=urls
        ) as cluster:
            return asyncio.run(chaos(cluster, plan, Nodes))

    report = await asyncio.to_thread(run)
    print(report)
    assert not report.wrong, str(report)
    assert report.asked["create: 202"] == plan.servers
    assert report.injected == {"node killed": 1, "node hung": 1}
    await everybody_is_at(0, both[0].nodes, kept)
    for db in kept:
        await db.close()
