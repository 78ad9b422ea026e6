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


async def count_on(tx: Tx, table: sa.Table, number: int) -> None:
    """Give the table's next row this number, which is above all that it has."""
    name = tx.dialect.name
    if name == "sqlite":
        await tx.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        row = {"name": table.name, "last": number - 1}
        await tx.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), row)
    elif name == "postgresql":
        row = {"name": table.name, "next": number}
        await tx.execute(sa.text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :next, false)"), row)
    else:
        await tx.execute(sa.text(f"ALTER TABLE {table.name} AUTO_INCREMENT = {int(number)}"))
