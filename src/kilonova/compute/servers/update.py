"""Changes of a server that touch nothing but its row."""

from __future__ import annotations

import enum
from typing import Any

from kilonova.compute.servers.hold import hold
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.errors import Conflict
from kilonova.runtime import Runtime


class Pin(enum.Enum):
    """What an update says of the zone that the server is pinned to, beside a zone's name."""

    LEAVE = "leave"


async def update(rt: Runtime, server: Server, changes: dict[str, Any], *, zone: str | Pin | None = Pin.LEAVE) -> None:
    """Change columns of the server; `zone` pins it to its own availability zone, None unpins it.

    Raises Conflict for another zone than the server's, NotFound.
    """

    async def work(tx: Tx) -> None:
        current = await hold(tx, server.uuid)
        values = dict(changes)
        if zone is None:
            values["pinned_availability_zone"] = None
        elif isinstance(zone, str):
            values["pinned_availability_zone"] = _pinned(current, zone, rt.settings.default_availability_zone)
        if values:
            await servers.update(tx, server.uuid, **values, updated_at=rt.world.now())

    await rt.db.write(work)


def _pinned(server: Server, zone: str, default: str) -> str:
    pinned = server.pinned_availability_zone
    if pinned is not None:
        if zone != pinned:
            raise Conflict(
                "Cannot change pinned availability zone directly. "
                "Unpin first by setting pinned_availability_zone to null."
            )
        return zone
    own = server.availability_zone or default
    if zone != own:
        raise Conflict(
            f"Server can only be pinned to its current availability zone '{own}', but '{zone}' was requested."
        )
    return zone
