"""Transactions that are committed together, and statements made ready once."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import gc
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kilonova.db import schema
from kilonova.db.engine import Database, Tx
from kilonova.db.tables import instance_types, quota_usages, tags

_ADD = sa.insert(quota_usages)
_ALL = sa.select(quota_usages.c.project_id, quota_usages.c.cores).order_by(quota_usages.c.project_id)
_ONE = _ALL.where(quota_usages.c.project_id == sa.bindparam("my_project"))
_FLAVOR = sa.insert(instance_types)
_FLAVORS = sa.select(instance_types)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/t.sqlite")
    await schema.create_all(database)
    yield database
    await database.close()


async def add(tx: Tx, project: str) -> str:
    await tx.execute(_ADD, {"project_id": project})
    return project


async def projects(db: Database) -> list[str]:
    return [row.project_id for row in await db.read(lambda tx: tx.execute(_ALL))]


def committed(tmp_path: Path) -> list[str]:
    """What another process sees."""
    with sqlite3.connect(tmp_path / "t.sqlite") as other:
        return [row[0] for row in other.execute("SELECT project_id FROM quota_usages ORDER BY 1")]


async def test_transactions_that_wait_together_share_commits(db: Database) -> None:
    begun: list[str] = []
    db.on_statement = lambda text: begun.append(text) if text.startswith("BEGIN") else None
    names = [f"p{number:03}" for number in range(100)]
    assert await asyncio.gather(*(db.write(lambda tx, name=name: add(tx, name)) for name in names)) == names
    assert len(begun) < 50
    assert await projects(db) == names


async def test_a_failure_undoes_its_own_transaction_and_no_other(db: Database) -> None:
    async def fails(tx: Tx) -> None:
        await add(tx, "never")
        raise ValueError("no")

    works = [lambda tx, n=n: fails(tx) if n % 3 == 0 else add(tx, f"p{n}") for n in range(9)]
    results = await asyncio.gather(*(db.write(work) for work in works), return_exceptions=True)
    assert [type(result) is ValueError for result in results] == [n % 3 == 0 for n in range(9)]
    assert await projects(db) == [f"p{n}" for n in range(9) if n % 3]


async def test_a_constraint_fails_as_the_general_way_does(db: Database) -> None:
    await db.write(lambda tx: add(tx, "a"))
    for _ in range(3):
        results = await asyncio.gather(
            *(db.write(lambda tx, name=name: add(tx, name)) for name in ("b", "a")), return_exceptions=True
        )
        assert isinstance(results[1], sa.exc.IntegrityError)
        await db.write(lambda tx: tx.execute(sa.delete(quota_usages).where(quota_usages.c.project_id == "b")))
    assert await projects(db) == ["a"]


async def test_nobody_is_told_before_the_commit(db: Database, tmp_path: Path) -> None:
    told: dict[str, bool] = {}

    async def one(name: str) -> None:
        await db.write(lambda tx: add(tx, name))
        told[name] = name in committed(tmp_path)

    await asyncio.gather(*(one(f"p{number}") for number in range(20)))
    assert set(told.values()) == {True}
    assert len(told) == 20


async def test_a_commit_that_fails_fails_all_who_share_it(db: Database, tmp_path: Path) -> None:
    await db.write(lambda tx: tx.run_sync(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1")))
    tag = "x" * 80

    async def much(tx: Tx) -> None:
        for number in range(300):
            await tx.execute(sa.insert(tags).values(resource_id=str(number), tag=tag))

    results = await asyncio.gather(
        db.write(lambda tx: add(tx, "a")), db.write(much), db.write(lambda tx: add(tx, "b")), return_exceptions=True
    )
    assert isinstance(results[1], sa.exc.OperationalError)
    assert await projects(db) == [name for name, result in zip("a-b", results, strict=True) if result == name]
    assert committed(tmp_path) == await projects(db)


async def test_a_transaction_has_its_callers_context(db: Database) -> None:
    caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")

    async def work(tx: Tx) -> str:
        return await add(tx, caller.get())

    async def one(name: str) -> str:
        caller.set(name)
        return await db.write(work)

    names = [f"p{number}" for number in range(5)]
    assert await asyncio.gather(*(one(name) for name in names)) == names


async def test_rows_are_the_same_the_first_and_every_later_time(db: Database) -> None:
    now = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC).replace(tzinfo=None)
    for number in range(3):
        values = {
            "flavorid": str(number), "name": f"m{number}", "vcpus": 1, "memory_mb": 1, "root_gb": 1,
            "extra_specs": {"a": str(number)}, "disabled": number == 1, "created_at": now,
        }  # fmt: skip
        result = await db.write(lambda tx, values=values: tx.execute(_FLAVOR, values))
        assert result.inserted_primary_key[0] == number + 1
    seen = []
    for _ in range(3):
        rows = (await db.read(lambda tx: tx.execute(_FLAVORS))).all()
        seen.append([(row.name, row.extra_specs, row.disabled, row.created_at, dict(row._mapping)) for row in rows])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1][:4] == ("m1", {"a": "1"}, True, now)


async def test_a_missing_parameter_is_an_error_each_time(db: Database) -> None:
    for _ in range(3):
        with pytest.raises(sa.exc.StatementError, match="my_project"):
            await db.read(lambda tx: tx.execute(_ONE))


async def test_a_long_list_is_whole(db: Database) -> None:
    names = [f"p{number:05}" for number in range(3000)]
    await db.write(lambda tx: tx.execute(_ADD, [{"project_id": name} for name in names]))
    for _ in range(3):
        assert await projects(db) == names


async def test_reads_beyond_the_pool_wait_for_their_turn(db: Database) -> None:
    going = asyncio.Event()

    async def slow(tx: Tx) -> None:
        await going.wait()

    tasks = [asyncio.create_task(db.read(slow)) for _ in range(10)]
    await asyncio.sleep(0.05)
    tasks[7].cancel()
    going.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results].count(asyncio.CancelledError) == 1
    assert await projects(db) == []


async def test_statements_made_for_one_call_are_not_kept(db: Database) -> None:
    for number in range(20):
        query = sa.select(quota_usages.c.cores).where(quota_usages.c.project_id == str(number))
        await db.read(lambda tx, query=query: tx.execute(query))
    del query
    gc.collect()
    assert len(db._files[1].statements._known) < 10
