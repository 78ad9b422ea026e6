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


async def get(tx: Tx, user_id: str, name: str) -> KeyPair | None:
    query = sa.select(key_pairs).where(key_pairs.c.user_id == user_id, key_pairs.c.name == name)
    row = (await tx.execute(query)).first()
    return from_row(row) if row else None
