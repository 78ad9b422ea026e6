"""The password that a guest has made for itself: encrypted by it, stored once, read and cleared by its owner."""

from __future__ import annotations

from kilonova.db import servers
from kilonova.db.tables import instances
from kilonova.errors import Conflict, Invalid, NotFound
from kilonova.runtime import Runtime

MOST = 1020
"""Bytes."""


async def get(rt: Runtime, server_uuid: str) -> str:
    """Empty when there is none. Raises NotFound."""
    server = await rt.db.read(lambda tx: servers.get(tx, server_uuid))
    if server is None:
        raise NotFound("There is no such instance.")
    return server.guest_password or ""


async def store_once(rt: Runtime, server_uuid: str, password: bytes) -> None:
    """Nothing posted takes no place.

    Raises Conflict when there is one, Invalid when it is too long or no text, NotFound without the server.
    """
    if len(password) > MOST:
        raise Invalid(f"A password may have {MOST} bytes at most.")
    try:
        text = password.decode()
    except UnicodeDecodeError:
        raise Invalid("A password must be text: encrypted ones are sent in base64.") from None
    if "\0" in text:
        raise Invalid("A password must be text, without zero bytes.")
    if not text:
        return
    empty = instances.c.guest_password.is_(None)
    if not await rt.db.write(lambda tx: servers.update(tx, server_uuid, empty, guest_password=text)):
        await get(rt, server_uuid)
        raise Conflict("The instance has a password already.")


async def clear(rt: Runtime, server_uuid: str) -> None:
    await rt.db.write(lambda tx: servers.update(tx, server_uuid, guest_password=None))
