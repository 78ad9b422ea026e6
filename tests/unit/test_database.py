"""Transactions and migrations on SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from kilonova.db import schema
from kilonova.db.engine import Database, Tx, async_url
from kilonova.db.tables import quota_usages
from kilonova.db.types import database_seconds
from kilonova.errors import Conflict
from kilonova.transactions import forbid_in_transaction


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/t.sqlite")
    await schema.create_all(database)
    yield database
    await database.close()


async def add(tx: Tx, project: str) -> None:
    await tx.execute(sa.insert(quota_usages).values(project_id=project))


async def count(tx: Tx) -> int:
    return int((await tx.execute(sa.select(sa.func.count()).select_from(quota_usages))).scalar_one())


async def test_a_transaction_that_fails_leaves_nothing(db: Database) -> None:
    async def work(tx: Tx) -> None:
        await add(tx, "a")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await db.write(work)
    assert await db.read(count) == 0


async def test_a_caller_who_gives_up_does_not_cut_a_transaction_in_half(db: Database) -> None:
    inside = asyncio.Event()

    async def work(tx: Tx) -> None:
        await add(tx, "a")
        inside.set()
        await asyncio.sleep(0.05)
        await add(tx, "b")

    task = asyncio.create_task(db.write(work))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await db.write(lambda tx: add(tx, "c"))
    assert await db.read(count) == 3


async def test_other_services_must_not_be_awaited_inside_a_transaction(db: Database) -> None:
    async def work(tx: Tx) -> None:
        forbid_in_transaction("Image's API")

    with pytest.raises(RuntimeError, match="Image's API"):
        await db.write(work)
    forbid_in_transaction("Image's API")


async def test_a_read_over_its_budget_ends_with_the_same_rows(db: Database) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT sum(i) FROM n"

    async def work(tx: Tx) -> int:
        return int((await tx.execute(sa.text(numbers))).scalar_one())

    assert await db.read(work) == 300000 * 300001 // 2


async def test_a_lock_of_another_process_is_waited_for(db: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "t.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(db.write(lambda tx: add(tx, "a")))
    await asyncio.sleep(0.05)
    assert not task.done()
    other.execute("COMMIT")
    other.close()
    await task
    assert await db.read(count) == 1


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(sa.exc.OperationalError, match="readonly"):
        await db.read(lambda tx: add(tx, "a"))


async def test_the_database_clock_counts_seconds(db: Database) -> None:
    async def now(tx: Tx) -> float:
        return float((await tx.execute(sa.select(database_seconds()))).scalar_one())

    first = await db.read(now)
    await asyncio.sleep(0.02)
    assert 0.01 < await db.read(now) - first < 60


async def test_migrations_make_exactly_the_tables_in_code_and_are_done_once(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.sqlite")
    await schema.migrate(database)
    await schema.migrate(database)
    assert await schema.revision(database) == schema.newest()

    async def compare(tx: Tx) -> list[object]:
        return await tx.run_sync(schema.differences)

    assert await database.read(compare) == []
    await database.close()


def test_the_newest_revision_by_name_is_the_migrations_last() -> None:
    assert ScriptDirectory.from_config(schema.config()).get_current_head() == schema.newest()


def test_roles_work_on_their_own_revision_and_on_the_next() -> None:
    own = int(schema.newest())
    assert [schema.serves(f"{own + more:04d}") for more in (-1, 0, 1, 2)] == [False, True, True, False]
    assert not schema.serves(None)
    assert not schema.serves("a branch")


async def test_a_newer_releases_database_is_refused(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.sqlite")
    await schema.migrate(database)

    async def pretend(tx: Tx) -> None:
        await tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    await database.write(pretend)
    with pytest.raises(Conflict, match="9999"):
        await schema.migrate(database)
    await database.close()


def test_the_guides_database_url_is_taken_as_it_stands() -> None:
    url = async_url("mysql://nova:Password123$@controller01/nova")
    assert (url.drivername, url.password, url.host) == ("mysql+asyncmy", "Password123$", "controller01")
    with pytest.raises(ValueError, match="oracle"):
        async_url("oracle://u:p@h/db")


async def test_a_schema_that_lacks_a_column_of_its_revision_is_refused_at_the_start(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.sqlite")
    await schema.migrate(database)
    await database.write(lambda tx: tx.execute(sa.text("ALTER TABLE instance_types DROP COLUMN description")))
    with pytest.raises(Conflict, match=r"lacks parts of it.*description"):
        await schema.migrate(database)
    await database.close()
