"""A statement whose answer never comes: the database's machine lost its power (see test_machines.py)."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Database
from tests.support.machines import Site, go_inside, site
from tests.support.mariadb import MariaDB
from tests.support.processes import serving


async def lose_power(where: Site, mariadb: MariaDB) -> None:
    """While a statement is under way; the machine comes back, and knows of nothing."""
    db = Database(mariadb.new_database(), gone=3)
    asked: list[bool] = []

    async def ask(tx: Any) -> Any:
        first = not asked
        asked.append(first)
        return await tx.scalar(sa.text("SELECT SLEEP(3600)" if first else "SELECT 7"))

    asking = asyncio.ensure_future(db.read(ask))
    try:
        while "SLEEP" not in mariadb.execute("SHOW PROCESSLIST"):
            await asyncio.sleep(0.1)
        where.switch.lose_power(where.services, mariadb.kill)
        mariadb.start()
        print(await asyncio.wait_for(asking, 90), "by attempt", len(asked))
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await db.close()


def main() -> None:
    go_inside("tests.cluster.vanished_worker")
    with site(0, 0) as where:
        durable = functools.partial(MariaDB, fsync=True, place=where.services)
        with serving(durable, "kn-vanished-") as mariadb:
            asyncio.run(lose_power(where, mariadb))


if __name__ == "__main__":
    main()
