"""The life of a console token: issued by the API, consumed once by a proxy, revoked when its guest goes away.

A token is worth a guest's screen, so only its hash is kept. The browser's page makes up a session id before it
connects: with it the one that consumed the token, and nobody else, may come back for a while.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

from kilonova.compute import states
from kilonova.console.settings import ConsoleSettings
from kilonova.db import console_tokens, servers
from kilonova.db.console_tokens import ConsoleToken
from kilonova.db.engine import Tx
from kilonova.world import World

LIVE = (states.ACTIVE, states.PAUSED, states.RESCUED, states.RESIZED, states.ERROR)
"""States of servers whose guest may have a screen; the host says whether it has."""


class Refusal(Enum):
    """Why a token opens nothing."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED = "used"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a consumed token opens. `seconds`: for how long, None without end."""

    server_uuid: str
    host: str
    console_type: str
    connection: str
    seconds: float | None


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


async def issue(
    tx: Tx,
    world: World,
    settings: ConsoleSettings,
    *,
    server_uuid: str,
    host: str,
    console_type: str,
    address: str,
    port: int,
) -> str:
    """A new token for a server's console on its host."""
    token = world.uuid()
    values = {
        "token_hash": hash_of(token),
        "server_uuid": server_uuid,
        "host": host,
        "console_type": console_type,
        "address": address,
        "port": port,
        "created_at": world.now(),
    }
    await console_tokens.insert(tx, values, ttl=settings.token_ttl)
    return token


async def find(tx: Tx, token: str) -> ConsoleToken | None:
    """The token's row while it is valid, whether or not somebody consumed it."""
    found = await console_tokens.get(tx, hash_of(token))
    if found is None or found[0].revoked or found[1] <= 0:
        return None
    return found[0]


async def consume(tx: Tx, world: World, settings: ConsoleSettings, token: str, session: str) -> Grant | Refusal:
    """Open the token's console for the session (empty: for somebody who cannot come back)."""
    token_hash, connection = hash_of(token), world.uuid()
    session_hash = hash_of(session) if session else ""
    taken = await console_tokens.consume(
        tx, token_hash, session_hash=session_hash, connection=connection, reconnect=settings.reconnect
    )
    if not taken and session:
        taken = await console_tokens.come_back(
            tx, token_hash, session_hash=session_hash, connection=connection, reconnect=settings.reconnect
        )
    found = await console_tokens.get(tx, token_hash)
    if found is None:
        return Refusal.UNKNOWN
    row, left = found
    if not taken:
        if row.revoked:
            return Refusal.REVOKED
        return Refusal.USED if row.session_hash is not None else Refusal.EXPIRED
    server = await servers.get(tx, row.server_uuid)
    if server is None or server.deleting or server.host != row.host or server.vm_state not in LIVE:
        return Refusal.REVOKED
    if settings.enforce_session_timeout and left <= 0:
        return Refusal.EXPIRED
    return Grant(
        server_uuid=row.server_uuid,
        host=row.host,
        console_type=row.console_type,
        connection=connection,
        seconds=left if settings.enforce_session_timeout else None,
    )


async def revoke(tx: Tx, server_uuid: str) -> None:
    """Called in the transaction in which a server's guest ends or moves: a token is for one guest on one host."""
    await console_tokens.revoke(tx, server_uuid)
