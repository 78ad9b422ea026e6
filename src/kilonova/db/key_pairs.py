"""Rows of key pairs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import key_pairs


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One key pair; the fields are the columns of `key_pairs`, in their order."""

    id: int
    user_id: str
    name: str
    type: str
    fingerprint: str
    public_key: str
    created_at: dt.datetime


def from_row(row: Sequence[Any]) -> KeyPair:
    return KeyPair(*row)


_GET = sa.select(key_pairs).where(
    key_pairs.c.user_id == sa.bindparam("user_id"), key_pairs.c.name == sa.bindparam("name")
)


async def get(tx: Tx, user_id: str, name: str) -> KeyPair | None:
    row = (await tx.execute(_GET, {"user_id": user_id, "name": name})).first()
    return from_row(row) if row else None


async def find(tx: Tx, user_id: str, *, limit: int | None, after: KeyPair | None) -> list[KeyPair]:
    """A user's key pairs by name, after one of them; all without a limit."""
    query = sa.select(key_pairs).where(key_pairs.c.user_id == user_id).order_by(key_pairs.c.name)
    if after is not None:
        query = query.where(key_pairs.c.name > after.name)
    if limit is not None:
        query = query.limit(limit)
    return [from_row(row) for row in await tx.execute(query)]


async def count(tx: Tx, user_id: str) -> int:
    query = sa.select(sa.func.count()).select_from(key_pairs).where(key_pairs.c.user_id == user_id)
    return int((await tx.execute(query)).scalar_one())


async def insert(tx: Tx, values: dict[str, Any]) -> None:
    await tx.execute(sa.insert(key_pairs).values(values))


async def delete(tx: Tx, user_id: str, name: str) -> bool:
    """False when there was none."""
    statement = sa.delete(key_pairs).where(key_pairs.c.user_id == user_id, key_pairs.c.name == name)
    return bool((await tx.execute(statement)).rowcount)
