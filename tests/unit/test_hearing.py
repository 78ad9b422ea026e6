"""Silence tells something only while somebody could have been heard, whichever process asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kilonova.agent.driver import Inventory
from kilonova.bus.messages import Heartbeat, HostReport
from kilonova.conductor.host_picture import HostPicture
from kilonova.conductor.hosts import Hosts
from kilonova.db.engine import Database, Tx
from kilonova.db.hosts import COMPUTE, CONDUCTOR
from kilonova.db.schema import create_all
from kilonova.db.tables import services
from kilonova.db.types import database_seconds
from kilonova.settings import ComputeSettings
from kilonova.world import World

SETTINGS = ComputeSettings(service_down_time=60.0, report_interval=10.0)
BEAT = Heartbeat(host="controller", binary=CONDUCTOR, incarnation="i")


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/compute.sqlite", synchronous="OFF")
    await create_all(database)
    before = Hosts(database, World(1), SETTINGS)
    for name in ("one", "two"):
        inventory = Inventory(
            hypervisor_type="sim", hypervisor_version=1, hypervisor_hostname=name, vcpus=8, memory_mb=64, local_gb=1
        )
        await before.on_report(HostReport(host=name, incarnation="i", inventory=inventory))
    before.on_heartbeat(BEAT)
    await before._flush()
    yield database
    await database.close()


async def silent(db: Database, **seconds: float) -> None:
    """How long ago each host was last heard."""

    async def work(tx: Tx) -> None:
        for host, ago in seconds.items():
            values = {"last_seen": database_seconds() - ago}
            await tx.execute(sa.update(services).where(services.c.host == host).values(**values))

    await db.write(work)


async def up(db: Database) -> list[str]:
    """As a scheduler and a conductor see it that have just been started; they agree."""
    picture = await HostPicture(db, World(1), SETTINGS).current(0.0)
    seen = [node.host for node, usable in zip(picture.nodes, picture.usable, strict=True) if usable]
    conductor = Hosts(db, World(1), SETTINGS)
    assert seen == [host for host in ("one", "two") if await conductor.is_up(host)]
    return seen


async def hear(db: Database, *beats: Heartbeat) -> None:
    conductor = Hosts(db, World(1), SETTINGS)
    for beat in beats:
        conductor.on_heartbeat(beat)
    await conductor._flush()


async def test_a_host_that_others_were_heard_after_is_down(db: Database) -> None:
    await silent(db, controller=3, one=61, two=50)
    assert await up(db) == ["two"]


async def test_while_nobody_is_heard_hosts_stay_what_they_were(db: Database) -> None:
    await silent(db, controller=500, one=505, two=600)
    assert await up(db) == ["one"]


async def test_the_first_to_be_heard_again_gives_the_others_time(db: Database) -> None:
    await silent(db, controller=500, one=505, two=600)
    await hear(db, BEAT)
    assert await up(db) == ["one"]
    # One that comes back at once, and another conductor that notices the same, change nothing for the others.
    await hear(db, BEAT, Heartbeat(host="two", binary=COMPUTE, incarnation="i"))
    assert await up(db) == ["one", "two"]


async def test_the_time_that_they_are_given_ends(db: Database) -> None:
    await silent(db, controller=500, one=505, two=600)
    await hear(db, BEAT)
    ages = await db.read(lambda tx: _ages(tx))
    # What it was silent for before nobody could be heard is not forgiven.
    # The hosts were written one after the other, so the five seconds are some milliseconds more or less.
    assert 4.0 <= ages["one"] < 50.0
    await silent(db, one=ages["one"] + 60.0)
    assert await up(db) == []


async def test_a_pause_that_is_nothing_unusual_is_not_forgiven(db: Database) -> None:
    await silent(db, controller=20, one=61, two=59)
    assert await up(db) == ["two"]
    await hear(db, BEAT)
    assert (await db.read(lambda tx: _ages(tx)))["one"] >= 60.5


async def _ages(tx: Tx) -> dict[str, float]:
    query = sa.select(services.c.host, (database_seconds() - services.c.last_seen).label("age"))
    return {row.host: row.age for row in await tx.execute(query)}
