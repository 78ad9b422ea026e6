"""Rows of console tokens. All times are of the database's clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import console_tokens, instances
from kilonova.db.types import database_seconds

_c = console_tokens.c


@dataclass(frozen=True, slots=True)
class ConsoleToken:
    """One token; the fields are the columns of `console_auth_tokens`, in their order."""

    id: int
    token_hash: str
    server_uuid: str
    host: str
    console_type: str
    address: str
    port: int
    expires_at: float
    session_hash: str | None
    connection: str | None
    reconnect_until: float | None
    revoked: bool
    created_at: dt.datetime


async def insert(tx: Tx, values: dict[str, Any], *, ttl: float) -> None:
    """Add one that expires in `ttl` seconds."""
    await tx.execute(sa.insert(console_tokens).values(**values, expires_at=database_seconds() + ttl))


async def get(tx: Tx, token_hash: str) -> tuple[ConsoleToken, float] | None:
    """The token, and for how many seconds it is still valid (negative: since when it is not)."""
    query = sa.select(console_tokens, database_seconds().label("now")).where(_c.token_hash == token_hash)
    row = (await tx.execute(query)).first()
    if row is None:
        return None
    *columns, now = row
    token = ConsoleToken(*columns)
    return token, token.expires_at - float(now)


async def consume(tx: Tx, token_hash: str, *, session_hash: str, connection: str, reconnect: float) -> bool:
    """Take a token that nobody has taken, in one guarded UPDATE: of any number of callers one gets True."""
    guard = (_c.session_hash.is_(None), _c.expires_at > database_seconds())
    values = {"session_hash": session_hash, "connection": connection}
    return await _take(tx, token_hash, guard, values, reconnect)


async def come_back(tx: Tx, token_hash: str, *, session_hash: str, connection: str, reconnect: float) -> bool:
    """Take it anew for the session that consumed it, while it still may come back."""
    guard = (_c.session_hash == session_hash, _c.reconnect_until > database_seconds())
    return await _take(tx, token_hash, guard, {"connection": connection}, reconnect)


async def _take(
    tx: Tx, token_hash: str, guard: Sequence[sa.ColumnElement[bool]], values: dict[str, Any], reconnect: float
) -> bool:
    statement = sa.update(console_tokens).where(_c.token_hash == token_hash, _c.revoked.is_(False), *guard)
    return bool((await tx.execute(statement.values(**values, reconnect_until=_from_now(reconnect)))).rowcount)


def _from_now(seconds: float) -> sa.ColumnElement[float]:
    return database_seconds() + seconds


async def hold(tx: Tx, connections: Sequence[str], *, reconnect: float) -> set[str]:
    """Those of the connections that may go on; the time in which they may come back begins anew."""
    at_home = sa.select(instances.c.uuid).where(
        instances.c.uuid == _c.server_uuid,
        instances.c.host == _c.host,
        instances.c.deleted == 0,
        instances.c.deleting.is_(False),
    )
    query = sa.select(_c.connection).where(_c.connection.in_(connections), _c.revoked.is_(False), at_home.exists())
    going_on = {str(row[0]) for row in await tx.execute(query)}
    if going_on:
        held = sa.update(console_tokens).where(_c.connection.in_(going_on), _c.revoked.is_(False))
        await tx.execute(held.values(reconnect_until=_from_now(reconnect)))
    return going_on


async def connections(tx: Tx, asked: Sequence[str]) -> set[str]:
    """Those that have a token still: nobody took it from them."""
    return {str(row[0]) for row in await tx.execute(sa.select(_c.connection).where(_c.connection.in_(asked)))}


async def revoke(tx: Tx, server_uuid: str) -> None:
    """No token of the server opens anything from now on."""
    await tx.execute(
        sa.update(console_tokens).where(_c.server_uuid == server_uuid, _c.revoked.is_(False)).values(revoked=True)
    )


async def sweep(tx: Tx, *, keep: float) -> int:
    """Delete those that expired `keep` seconds ago and have no session; returns how many."""
    now = database_seconds()
    idle = sa.or_(_c.reconnect_until.is_(None), _c.reconnect_until < now)
    return int((await tx.execute(sa.delete(console_tokens).where(_c.expires_at < now - keep, idle))).rowcount)
