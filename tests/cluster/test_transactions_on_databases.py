"""What the engine counts on, on the databases of deployments: isolation, deadlocks, clocks, JSON, keys, and a server
that is killed and started again under writers.

The server that is killed is the test's own; others want theirs alive.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.db import schema
from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import CommitUnknown, Database, Tx, is_deadlock, is_unreachable
from kilonova.db.restored import restored
from kilonova.db.tables import instance_types, quota_usages
from kilonova.db.types import database_seconds
from kilonova.engine import store
from kilonova.world import World
from tests.support.databases import DatabaseServer
from tests.support.mariadb import MariaDB
from tests.support.postgresql import PostgreSQL
from tests.support.processes import serving

c = quota_usages.c


@pytest.fixture
async def db(database_server: DatabaseServer) -> AsyncIterator[Database]:
    made = Database(database_server.new_database(), pool_size=20)
    await schema.migrate(made)
    yield made
    await made.close()


def taken(project: str) -> sa.Update:
    return sa.update(quota_usages).where(c.project_id == project).values(instances=c.instances + 1)


async def add(tx: Tx, *projects: str) -> None:
    for project in projects:
        await tx.execute(sa.insert(quota_usages).values(project_id=project))


async def counted(db: Database) -> dict[str, int]:
    async def work(tx: Tx) -> dict[str, int]:
        return {row.project_id: row.instances for row in await tx.execute(sa.select(c.project_id, c.instances))}

    return await db.read(work)


async def test_the_migrations_make_what_the_tables_say_and_then_nothing(db: Database) -> None:
    await db.write(lambda tx: add(tx, "a"))
    await schema.migrate(db)
    assert await schema.revision(db) == schema.newest()

    async def differences(tx: Tx) -> list[Any]:
        return await tx.run_sync(schema.differences)

    assert await db.write(differences) == []
    assert await counted(db) == {"a": 0}


async def test_each_statement_sees_what_is_committed_by_then(db: Database) -> None:
    await db.write(lambda tx: add(tx, "a"))

    async def work(tx: Tx) -> list[int]:
        query = sa.select(c.instances).where(c.project_id == "a")
        seen = [(await tx.execute(query)).scalar_one()]
        await asyncio.create_task(other.write(lambda tx: tx.execute(taken("a"))))
        return [*seen, (await tx.execute(query)).scalar_one()]

    other = Database(db.url.render_as_string(hide_password=False))
    try:
        assert await db.write(work) == [0, 1]
    finally:
        await other.close()


async def test_a_guarded_update_waits_for_the_one_before_it_and_looks_again(db: Database) -> None:
    await db.write(lambda tx: add(tx, "a"))

    async def take(tx: Tx) -> int:
        return int((await tx.execute(taken("a").where(c.instances < 7))).rowcount)

    assert Counter(await asyncio.gather(*(db.write(take) for _ in range(30)))) == {1: 7, 0: 23}
    assert await counted(db) == {"a": 7}


async def test_who_is_chosen_as_a_deadlocks_victim_begins_anew(db: Database) -> None:
    await db.write(lambda tx: add(tx, "a", "b"))
    runs = Counter[str]()
    both = asyncio.Barrier(2)

    async def cross(tx: Tx, first: str, second: str) -> None:
        runs[first] += 1
        await tx.execute(taken(first))
        if runs[first] == 1:
            await both.wait()
        await tx.execute(taken(second))

    await asyncio.gather(db.write(lambda tx: cross(tx, "a", "b")), db.write(lambda tx: cross(tx, "b", "a")))
    assert sum(runs.values()) > 2, "there was no deadlock"
    assert await counted(db) == {"a": 2, "b": 2}


async def test_a_transaction_that_cannot_be_put_in_order_is_told_from_other_errors(postgresql: PostgreSQL) -> None:
    """As an operator has it who makes SERIALIZABLE the default; here the engine's own level is set aside."""
    db = Database(postgresql.new_database())
    await schema.migrate(db)
    await db.write(lambda tx: add(tx, "a"))
    other = Database(db.url.render_as_string(hide_password=False))

    async def stale(tx: Tx) -> None:
        await tx.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await tx.execute(sa.select(c.instances))
        await asyncio.create_task(other.write(lambda tx: tx.execute(taken("a"))))
        with pytest.raises(sqlalchemy.exc.DBAPIError) as refused:
            await tx.execute(taken("a"))
        assert is_deadlock(refused.value)
        raise LookupError

    try:
        with pytest.raises(LookupError):
            await db.write(stale)
    finally:
        await other.close()
        await db.close()


async def test_rows_that_somebody_holds_are_passed_over(db: Database) -> None:
    await db.write(lambda tx: add(tx, "a", "b", "c"))
    query = sa.select(c.project_id).order_by(c.project_id).limit(1).with_for_update(skip_locked=True)
    held = [asyncio.Event() for _ in range(3)]

    async def take(tx: Tx, number: int) -> str:
        if number:
            await held[number - 1].wait()
        found: str = (await tx.execute(query)).scalar_one()
        held[number].set()
        await held[2].wait()
        return found

    found = await asyncio.gather(*(db.write(lambda tx, number=number: take(tx, number)) for number in range(3)))
    assert found == ["a", "b", "c"]


async def test_the_databases_clock_goes_on_inside_a_transaction_and_is_one_for_all(db: Database) -> None:
    async def work(tx: Tx) -> list[float]:
        seen = []
        for _ in range(2):
            seen.append((await tx.execute(sa.select(database_seconds()))).scalar_one())
            await tx.execute(sa.text("SELECT 1"))
        await asyncio.sleep(0.01)
        return [*seen, (await tx.execute(sa.select(database_seconds()))).scalar_one()]

    for first, second, third in (await db.write(work), await db.read(work)):
        assert isinstance(first, float)
        assert first <= second < third
    earlier = (await db.write(work))[2]
    assert (await db.read(work))[0] >= earlier


async def test_json_comes_back_as_it_was_and_none_is_null(db: Database) -> None:
    specs = {"hw:é": "日本語 \U0001f600", "a": ["x", {"b": None}], "n": 1.5, "quote": "'\"\\ %s :name $1"}
    row = {"name": "f", "flavorid": "f", "memory_mb": 1, "vcpus": 1, "root_gb": 1, "created_at": sa.func.now()}

    async def work(tx: Tx) -> Any:
        await tx.execute(sa.insert(instance_types).values(**row, extra_specs=specs))
        return (await tx.execute(sa.select(instance_types.c.extra_specs))).scalar_one()

    assert await db.write(work) == specs


async def test_of_many_who_insert_the_same_row_one_does(db: Database) -> None:
    async def work(tx: Tx) -> None:
        await insert_if_missing(tx, quota_usages, {"project_id": "a"})
        await tx.execute(taken("a"))

    await asyncio.gather(*(db.write(work) for _ in range(20)))
    assert await counted(db) == {"a": 20}


async def test_numbers_of_rows_grow_whoever_fails(db: Database) -> None:
    async def insert(tx: Tx, name: str, fails: bool) -> int:
        row = {"name": name, "flavorid": name, "memory_mb": 1, "vcpus": 1, "root_gb": 1, "created_at": sa.func.now()}
        made = (await tx.execute(sa.insert(instance_types).values(**row, extra_specs={}))).inserted_primary_key
        if fails:
            raise LookupError
        assert made is not None
        return int(made[0])

    seen = []
    for number in range(6):
        if number % 2:
            with pytest.raises(LookupError):
                await db.write(lambda tx, number=number: insert(tx, f"f{number}", True))
        else:
            seen.append(await db.write(lambda tx, number=number: insert(tx, f"f{number}", False)))
    assert seen == sorted(set(seen))


async def test_after_a_restore_numbers_go_on_above_a_gap(db: Database) -> None:
    async def insert(tx: Tx) -> int:
        return await store.insert(
            tx, kind="boot", action="create", server_uuid="u", project_id="p", user_id="u", request_id="r",
            now=World().now(),
        )  # fmt: skip

    first = await db.write(insert)
    nexts, under_way = await restored(db)
    assert (nexts["instance_actions"], under_way) == (first + 1_000_000_000, 1)
    assert await db.write(insert) == first + 1_000_000_000


@pytest.fixture(params=[MariaDB, PostgreSQL])
def mortal(request: pytest.FixtureRequest) -> Iterator[MariaDB | PostgreSQL]:
    """A server that keeps what was committed when it is killed."""
    with serving(functools.partial(request.param, fsync=True), "kn-mortal-") as server:
        yield server


@pytest.mark.timeout(300)
async def test_a_server_that_dies_under_writers_loses_nothing_and_does_nothing_twice(
    mortal: MariaDB | PostgreSQL,
) -> None:
    """Whoever is told that his row is there finds it; of whom the answer was lost it is there once or not at all."""
    db = Database(mortal.new_database())
    await schema.migrate(db)
    told, unknown, refused = set[str](), set[str](), set[str]()
    ended = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            name = f"{writer}-{number}"
            try:
                await db.write(lambda tx, name=name: add(tx, name))
            except CommitUnknown:
                unknown.add(name)
            except Exception as error:
                if not is_unreachable(error):
                    raise
                refused.add(name)
            else:
                told.add(name)

    async def more() -> None:
        before = len(told)
        while len(told) < before + 50:
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as writers:
        for writer in range(8):
            writers.create_task(write(writer))
        for _ in range(2):
            await more()
            await asyncio.to_thread(mortal.kill)
            await asyncio.to_thread(mortal.start)
        await more()
        ended.set()
    found = set(await counted(db))
    await db.close()
    assert told <= found
    assert found <= told | unknown
    assert not refused & found


async def test_a_writer_that_is_gone_without_a_word_does_not_keep_its_locks(database_server: DatabaseServer) -> None:
    url = database_server.new_database()
    frozen, other = Database(url, gone=3), Database(url)
    await schema.migrate(other)
    await other.write(lambda tx: add(tx, "a"))
    locked, thawed = asyncio.Event(), asyncio.Event()

    async def work(tx: Tx) -> None:
        await tx.execute(taken("a"))
        locked.set()
        # What it never does: nobody else's machine can be made to vanish here.
        await thawed.wait()
        await tx.execute(taken("a"))

    writing = asyncio.ensure_future(frozen.write(work))
    try:
        await asyncio.wait_for(locked.wait(), 60)
        await asyncio.wait_for(other.write(lambda tx: tx.execute(taken("a"))), 60)
        thawed.set()
        await asyncio.wait_for(writing, 60)
        # Its first attempt was undone, its second made.
        assert await counted(other) == {"a": 3}
    finally:
        thawed.set()
        await asyncio.gather(writing, return_exceptions=True)
        await frozen.close()
        await other.close()
