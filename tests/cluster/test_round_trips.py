"""What a transaction costs on MariaDB: a read its statements and nothing else, a write them and a COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.db.tables import services
from tests.support.mariadb import MariaDB


@pytest.fixture
async def db(mariadb: MariaDB) -> AsyncIterator[Database]:
    made = Database(mariadb.new_database(), pool_size=2, max_overflow=0)
    await create_all(made)
    await made.read(two)
    await made.write(add)
    yield made
    await made.close()


async def two(tx: Any) -> list[Any]:
    return [(await tx.execute(sa.select(services))).all() for _ in range(2)]


async def add(tx: Any) -> None:
    row = {"uuid": sa.func.uuid(), "host": sa.func.uuid(), "binary": "b", "created_at": sa.func.now()}
    await tx.execute(sa.insert(services).values(**row))


async def fail(tx: Any) -> None:
    await add(tx)
    raise LookupError


def questions(mariadb: MariaDB) -> int:
    return int(mariadb.execute("SHOW GLOBAL STATUS LIKE 'Questions'").split()[1])


async def cost(mariadb: MariaDB, work: Any) -> int:
    first = questions(mariadb)
    own = questions(mariadb) - first
    before = questions(mariadb)
    await work
    return questions(mariadb) - before - own


async def test_a_transaction_goes_there_as_often_as_it_has_to(db: Database, mariadb: MariaDB) -> None:
    assert await cost(mariadb, db.read(two)) == 2
    assert await cost(mariadb, db.write(add)) == 2


async def test_what_fails_is_undone_and_leaves_a_clean_connection(db: Database, mariadb: MariaDB) -> None:
    (before, _) = await db.read(two)
    for _ in range(3):
        with pytest.raises(LookupError):
            await db.write(fail)
    assert (await db.read(two))[0] == before
    assert await cost(mariadb, db.write(add)) == 2
    assert len((await db.read(two))[0]) == len(before) + 1


async def test_what_a_cancelled_read_leaves_is_nobodys(db: Database) -> None:
    async def slow(tx: Any) -> None:
        await tx.execute(sa.select(sa.func.sleep(5)))

    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await db.read(slow)
    assert len((await db.read(two))[1]) == 1
