"""The schema's making; migrations stand in `migrations/`."""

from __future__ import annotations

from kilonova.db.engine import Database, Tx
from kilonova.db.tables import metadata


async def create_all(db: Database) -> None:
    """Make all tables that are missing."""

    async def work(tx: Tx) -> None:
        await tx.run_sync(metadata.create_all)

    await db.write(work)
