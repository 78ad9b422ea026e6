"""A server's row held until the end of the transaction, for changes that depend on what it holds."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.compute import states
from kilonova.db.engine import Tx
from kilonova.db.servers import Server, from_row
from kilonova.db.tables import instances
from kilonova.errors import Conflict, NotFound

CHANGEABLE = (states.ACTIVE, states.PAUSED, states.SUSPENDED, states.STOPPED)
"""The states in which metadata and tags may be changed."""


async def hold(tx: Tx, uuid: str) -> Server:
    """The server as it is now; nobody else changes it before this transaction ends. Raises NotFound."""
    query = sa.select(instances).where(instances.c.uuid == uuid, instances.c.deleted == 0).with_for_update()
    row = (await tx.execute(query)).first()
    if row is None:
        raise NotFound(f"Instance {uuid} could not be found.")
    return from_row(row)


async def hold_changeable(tx: Tx, uuid: str, action: str) -> Server:
    """`hold` a server in one of CHANGEABLE. Raises NotFound, Conflict."""
    server = await hold(tx, uuid)
    if server.vm_state not in CHANGEABLE:
        raise Conflict(f"Cannot '{action}' instance {uuid} while it is in vm_state {server.vm_state}")
    return server
