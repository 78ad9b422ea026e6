"""A server's row held until the end of the transaction, for changes that depend on what it holds."""

from __future__ import annotations

from kilonova.compute import states
from kilonova.db import servers
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.errors import Conflict, NotFound

CHANGEABLE = (states.ACTIVE, states.PAUSED, states.SUSPENDED, states.STOPPED)
"""The states in which metadata and tags may be changed."""


async def hold(tx: Tx, uuid: str) -> Server:
    """The server as it is now; nobody else changes it before this transaction ends. Raises NotFound."""
    server = await servers.get(tx, uuid, lock=True)
    if server is None:
        raise NotFound(f"Instance {uuid} could not be found.")
    return server


async def hold_changeable(tx: Tx, uuid: str, action: str) -> Server:
    """`hold` a server in one of CHANGEABLE. Raises NotFound, Conflict."""
    server = await hold(tx, uuid)
    if server.vm_state not in CHANGEABLE:
        raise Conflict(f"Cannot '{action}' instance {uuid} while it is in vm_state {server.vm_state}")
    return server
