"""A server is in the zone that it asked for, whatever aggregates are changed while it is placed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Awaitable

import sqlalchemy as sa

from kilonova.bus.memory import MemoryBus
from kilonova.compute import aggregates, claims
from kilonova.compute.needs import Needs
from kilonova.conductor.host_picture import HostPicture
from kilonova.db import servers
from kilonova.db.engine import Database, Tx
from kilonova.db.schema import create_all
from kilonova.db.tables import instances, services
from kilonova.errors import Conflict
from kilonova.runtime import Runtime
from kilonova.scheduler.request import Candidate
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.world import World
from tests.support import server_rows
from tests.support.databases import DatabaseServer
from tests.support.hosts import placed, request
from tests.unit.scheduler.test_host_picture import add_host

ROUNDS = 30
ONE = Needs(vcpus=1, memory_mb=1, disk_gb=1)


async def test_a_host_joins_a_zone_or_is_claimed_in_its_old_one(database_server: DatabaseServer) -> None:
    """An administrator moves the host while two conductors claim what schedulers had decided on before."""
    url = database_server.new_database()
    async with contextlib.AsyncExitStack() as stack:
        # Each with connections of its own, as processes have them.
        pools = [Database(url) for _ in range(3)]
        for db in pools:
            stack.push_async_callback(db.close)
        await create_all(pools[0])
        rts = [
            Runtime(
                world=World(), db=db, bus=MemoryBus(), images=StaticImages(), image_token=no_token,
                settings=ComputeSettings(),
            )
            for db in pools
        ]  # fmt: skip
        admin, first, second = rts
        node_id = await add_host(pools[0], "h1")
        east = await aggregates.create(admin, "east", "east")
        now = dt.datetime.now(dt.UTC).replace(tzinfo=None)

        async def decide(rt: Runtime) -> Candidate:
            picture = await HostPicture(rt.db, rt.world, rt.settings).current(0.0)
            return placed(picture, request(vcpus=1, memory_mb=1)).candidates[0]

        async def claim(rt: Runtime, candidate: Candidate) -> bool:
            async def work(tx: Tx) -> bool:
                if not await claims.take(tx, ONE, node_id, None, "h1", candidate.aggregates_generation):
                    return False
                row = server_rows.values(uuid=rt.world.uuid(), host="h1", node="h1", created_at=now)
                row |= {"availability_zone": candidate.availability_zone, "claimed": True}
                await servers.insert(tx, row)
                return True

            return await rt.db.write(work)

        async def join() -> bool:
            try:
                await aggregates.add_host(admin, east.id, "h1")
            except Conflict:
                return False
            return True

        async def zones() -> tuple[set[str], str | None]:
            async def read(tx: Tx) -> tuple[set[str], str | None]:
                mine = await tx.execute(sa.select(instances.c.availability_zone).where(instances.c.deleted == 0))
                zone = await tx.execute(sa.select(services.c.availability_zone).where(services.c.host == "h1"))
                return {row[0] for row in mine}, zone.scalar_one()

            return await pools[0].read(read)

        outcomes = []
        for number in range(ROUNDS):
            decided = [await decide(rt) for rt in (first, second)]
            delays = (number % 3 * 0.002, number % 5 * 0.001)
            claiming = [
                asyncio.create_task(_later(delay, claim(rt, candidate)))
                for delay, rt, candidate in zip(delays, (first, second), decided, strict=True)
            ]
            joined = await join()
            claimed = [await task for task in claiming]
            assert not (joined and any(claimed)), "it was claimed in a zone that it had left"
            of_servers, of_host = await zones()
            assert of_servers <= {of_host or "nova"}
            outcomes.append(joined)

            async def clear(tx: Tx, held: int = sum(claimed)) -> None:
                await tx.execute(sa.delete(instances))
                for _ in range(held):
                    await claims._release_node(tx, ONE, claims.nodes.c.id == node_id)

            await pools[0].write(clear)
            if joined:
                await aggregates.remove_host(admin, east.id, "h1")
        assert True in outcomes


async def _later(seconds: float, work: Awaitable[bool]) -> bool:
    await asyncio.sleep(seconds)
    return await work
