"""After a backup was loaded: numbers that left the database after it was made are not given a second time.

Hosts keep the results of commands by the number of their operation, and name guests after the number of their server.
"""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.dialect import count_on
from kilonova.db.engine import Database, Tx
from kilonova.db.tables import instances, operations
from kilonova.db.tables.operations import OPEN

GAPS = ((operations, 1_000_000_000), (instances, 1_000_000))
"""By table, more than can have been given since the backup. Names of guests have eight digits of a server's number."""


async def restored(db: Database) -> tuple[dict[str, int], int]:
    """Leave a gap. By table the number that comes next; and how many operations will go on from where they stood."""

    async def work(tx: Tx) -> tuple[dict[str, int], int]:
        nexts = {}
        for table, gap in GAPS:
            last = (await tx.execute(sa.select(sa.func.max(table.c.id)))).scalar_one() or 0
            nexts[table.name] = int(last) + gap
        query = sa.select(sa.func.count()).select_from(operations).where(operations.c.state.in_(OPEN))
        under_way = int((await tx.execute(query)).scalar_one())
        for table, _ in GAPS:
            await count_on(tx, table, nexts[table.name])
        return nexts, under_way

    return await db.write(work)
