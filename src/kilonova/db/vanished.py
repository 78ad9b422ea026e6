"""Connections whose other side is gone without a word: its machine lost its power, or the network swallows everything.

Nobody is told of that: we would wait for an answer for ever, and the database would keep the locks of a transaction
that nobody goes on with.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def session(backend: str, seconds: int) -> dict[str, Any]:
    """Arguments to connect with: the database ends a transaction that is left idle for so long.

    Nothing but the database is awaited inside of one, so only who is gone, or frozen, leaves one idle.
    """
    if backend == "postgresql":
        return {"server_settings": {"idle_in_transaction_session_timeout": str(1000 * seconds)}}
    return {"init_command": f"SET SESSION idle_transaction_timeout = {seconds}"}


def watch(engine: AsyncEngine, seconds: int) -> None:
    """Its connections are lost once nothing was heard of the database's machine for so long."""

    @sa.event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        # Neither driver has an option for it; both call it so.
        peer = connection.driver_connection._transport.get_extra_info("socket")
        if peer.family not in (socket.AF_INET, socket.AF_INET6):
            return
        # A machine says that it is there every so often, however long a statement takes.
        often = max(1, seconds // 3)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, often)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, often)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        # Of what was sent and not acknowledged.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds)
