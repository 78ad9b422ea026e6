"""Tags of servers."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import tags

# Built once: it is read with every server shown.
_OF_SERVER = sa.select(tags.c.tag).where(tags.c.resource_id == sa.bindparam("server_uuid")).order_by(tags.c.tag)


async def get(tx: Tx, server_uuid: str) -> list[str]:
    """The server's tags, sorted."""
    return [row[0] for row in await tx.execute(_OF_SERVER, {"server_uuid": server_uuid})]


async def exists(tx: Tx, server_uuid: str, tag: str) -> bool:
    query = sa.select(sa.literal(1)).where(tags.c.resource_id == server_uuid, tags.c.tag == tag)
    return (await tx.execute(query)).first() is not None


async def add(tx: Tx, server_uuid: str, names: Sequence[str]) -> None:
    """Insert tags that the server does not have yet."""
    if names:
        await tx.execute(sa.insert(tags), [{"resource_id": server_uuid, "tag": name} for name in names])


async def remove(tx: Tx, server_uuid: str, tag: str) -> bool:
    """Delete one tag; False when the server did not have it."""
    result = await tx.execute(sa.delete(tags).where(tags.c.resource_id == server_uuid, tags.c.tag == tag))
    return bool(result.rowcount)


async def remove_all(tx: Tx, server_uuid: str) -> None:
    await tx.execute(sa.delete(tags).where(tags.c.resource_id == server_uuid))
