"""Tags of servers."""

from __future__ import annotations

from collections.abc import Sequence

from kilonova.compute.servers.hold import hold_changeable
from kilonova.db import tags
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.errors import Invalid, NotFound
from kilonova.runtime import Runtime

MOST = 50
"""Tags that a server may have."""


async def put(rt: Runtime, server: Server, tag: str) -> bool:
    """Give the server a tag; False when it had it. Raises Conflict, Invalid, NotFound."""

    async def work(tx: Tx) -> bool:
        await hold_changeable(tx, server.uuid, "update tag")
        current = await tags.get(tx, server.uuid)
        if len(current) >= MOST:
            raise Invalid(f"The number of tags exceeded the per-server limit {MOST}")
        if tag in current:
            return False
        await tags.add(tx, server.uuid, [tag])
        return True

    return await rt.db.write(work)


async def replace(rt: Runtime, server: Server, names: Sequence[str]) -> list[str]:
    """Have these tags and no others; returns them. Raises Conflict, NotFound."""
    wanted = sorted(set(names))

    async def work(tx: Tx) -> None:
        await hold_changeable(tx, server.uuid, "update tags")
        await tags.remove_all(tx, server.uuid)
        await tags.add(tx, server.uuid, wanted)

    await rt.db.write(work)
    return wanted


async def remove(rt: Runtime, server: Server, tag: str) -> None:
    """Raises Conflict, NotFound."""

    async def work(tx: Tx) -> None:
        await hold_changeable(tx, server.uuid, "delete tag")
        if not await tags.remove(tx, server.uuid, tag):
            raise NotFound(f"Instance {server.uuid} has no tag '{tag}'")

    await rt.db.write(work)


async def remove_all(rt: Runtime, server: Server) -> None:
    """Raises Conflict, NotFound."""

    async def work(tx: Tx) -> None:
        await hold_changeable(tx, server.uuid, "delete tags")
        await tags.remove_all(tx, server.uuid)

    await rt.db.write(work)
