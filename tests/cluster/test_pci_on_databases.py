"""No two servers have the same PCI device, however many conductors claim at once."""

from __future__ import annotations

import asyncio
import contextlib

import sqlalchemy as sa

from kilonova.compute import claims
from kilonova.compute.needs import Needs
from kilonova.db import pci_devices as devices
from kilonova.db.engine import Database, Tx
from kilonova.db.schema import create_all
from kilonova.db.tables import pci_devices
from kilonova.pci import read_device
from kilonova.world import World
from tests.support.databases import DatabaseServer
from tests.unit.scheduler.test_host_picture import add_host

KIND = "CUSTOM_PCI_8086_10FB"
COUNT = 7


async def test_devices_are_given_once_each(database_server: DatabaseServer) -> None:
    """Thirty servers want two of seven each; some give them back meanwhile."""
    url = database_server.new_database()
    async with contextlib.AsyncExitStack() as stack:
        # Each with connections of its own, as processes have them.
        pools = [Database(url) for _ in range(3)]
        for db in pools:
            stack.push_async_callback(db.close)
        await create_all(pools[0])
        found = tuple(read_device(f"0000:81:00.{number}=8086:10fb") for number in range(COUNT))
        node_id = await add_host(pools[0], "h1", vcpus=64, pci_devices=found)
        needs = Needs(vcpus=1, memory_mb=1, disk_gb=1, resources={KIND: 2}, devices={KIND: 2})
        held: dict[str, list[str]] = {}
        most = 0

        async def live(db: Database, keeps: bool) -> bool:
            nonlocal most
            uuid = World().uuid()

            async def take(tx: Tx) -> list[str] | None:
                if not await claims.take(tx, needs, node_id, None, "h1", 0, uuid):
                    return None
                return await devices.of_server(tx, uuid)

            async def give_back(tx: Tx) -> None:
                await claims._release_node(tx, needs, claims.nodes.c.id == node_id)
                await claims._give_back(tx, sa.select(claims.nodes.c.id), needs.resources)
                await devices.release(tx, uuid)
                # Before the commit, by which others may have them.
                held.pop(uuid, None)

            mine = await db.write(take)
            if mine is None:
                return False
            assert len(mine) == 2
            held[uuid] = mine
            everybody = [address for addresses in held.values() for address in addresses]
            assert len(everybody) == len(set(everybody)), held
            most = max(most, len(everybody))
            if not keeps:
                await asyncio.sleep(0.01)
                await db.write(give_back)
            return True

        taken = await asyncio.gather(*(live(pools[number % 3], number % 10 == 0) for number in range(30)))
        assert sum(taken) >= 3
        assert most <= COUNT
        c = pci_devices.c
        rows = (await pools[0].read(lambda tx: tx.execute(sa.select(c.server_uuid, c.address)))).all()
        assert sorted(row.address for row in rows if row.server_uuid) == sorted(
            address for mine in held.values() for address in mine
        )
        assert len(held) <= COUNT // 2
