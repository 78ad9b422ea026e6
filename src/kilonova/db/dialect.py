"""Statements whose words differ between databases."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kilonova.db.engine import Tx


async def insert_if_missing(tx: Tx, table: sa.Table, values: dict[str, Any]) -> None:
    """INSERT one row; a row with the same key, also one that is being inserted elsewhere, is left as it is."""
    name = tx.dialect.name
    statement: Any
    if name == "sqlite":
        statement = sqlite.insert(table).values(values).on_conflict_do_nothing()
    elif name == "postgresql":
        statement = postgresql.insert(table).values(values).on_conflict_do_nothing()
    else:
        statement = sa.insert(table).values(values).prefix_with("IGNORE")
    await tx.execute(statement)
