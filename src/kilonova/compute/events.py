"""What other services tell of servers: os-server-external-events."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from kilonova.bus.hints import hint
from kilonova.bus.messages import NetworkEvent
from kilonova.db.engine import Tx
from kilonova.db.tables import instances, operations
from kilonova.runtime import Runtime

NETWORK = "network-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    server_uuid: str
    name: str
    status: str = "completed"
    tag: str | None = None
    """Of a network event the port."""


@dataclass(frozen=True, slots=True)
class _Place:
    host: str | None
    owner: str | None
    deleting: bool


async def take(rt: Runtime, events: list[Event], needs_tag: frozenset[str]) -> list[int]:
    """Pass events on to whom they concern. Returns a code for each: 200; 404 no such server, 422 it has no host, 400.

    An event is a hint: who waits for something looks for itself too, so that one which is lost costs only time.
    """
    places = await _places(rt, sorted({event.server_uuid for event in events}))
    codes = []
    for event in events:
        place = places.get(event.server_uuid)
        if place is None:
            codes.append(404)
        elif event.name in needs_tag and event.tag is None:
            codes.append(400)
        elif place.host is None:
            codes.append(422)
        else:
            codes.append(200)
            # Of a server on its way out nobody wants to know.
            if event.name.startswith(NETWORK) and not place.deleting:
                await _tell(rt, event, place)
    return codes


async def _places(rt: Runtime, uuids: list[str]) -> dict[str, _Place]:
    query = (
        sa.select(instances.c.uuid, instances.c.host, operations.c.owner, instances.c.deleting)
        .select_from(instances.outerjoin(operations, operations.c.id == instances.c.operation_id))
        .where(instances.c.uuid.in_(uuids), instances.c.deleted == 0)
    )

    async def read(tx: Tx) -> dict[str, _Place]:
        return {row.uuid: _Place(row.host, row.owner, row.deleting) for row in await tx.execute(query)}

    return await rt.db.read(read)


async def _tell(rt: Runtime, event: Event, place: _Place) -> None:
    message = NetworkEvent(server_uuid=event.server_uuid, name=event.name.removeprefix(NETWORK), port_id=event.tag)
    # Whoever runs the server's operation may be waiting for it; else anybody may look.
    await hint(rt.bus, f"conductor.{place.owner}" if place.owner else "conductor", message)
