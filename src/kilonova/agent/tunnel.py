"""A way from the console proxies to what a host has no port for: one listener, through which only a ticket leads.

A ticket is handed out over the bus, is good for one connection, and is the first line said on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

import structlog

from kilonova.agent.driver import ConsoleAddress
from kilonova.world import World

log = structlog.get_logger(__name__)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Speaks with one proxy until either side ends; the connection is closed afterwards."""

_BUFFER = 32 * 1024
"""Bytes held of a direction that is not taken."""
_VALID = 30.0
"""Seconds in which a ticket has to be used."""
_SAY = 10.0
"""Seconds in which it has to be said."""


class Tunnel:
    """Listens from the first ticket on, at a port that the system chooses."""

    def __init__(self, world: World, address: str) -> None:
        self.address = address
        self._world = world
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._tickets: dict[str, tuple[float, Serve]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def address_of(self, serve: Serve, *, ticket: bool) -> ConsoleAddress:
        """Where a proxy has to go; `ticket` makes one that leads to `serve`."""
        port = await self._port()
        return ConsoleAddress(host=self.address, port=port, ticket=self._ticket(serve) if ticket else None)

    async def _port(self) -> int:
        async with self._starting:
            if self._server is None:
                self._server = await asyncio.start_server(self._connected, self.address, 0, limit=_BUFFER)
        return int(self._server.sockets[0].getsockname()[1])

    def _ticket(self, serve: Serve) -> str:
        now = self._world.monotonic()
        self._tickets = {each: found for each, found in self._tickets.items() if found[0] > now}
        made = secrets.token_urlsafe(24)
        self._tickets[made] = (now + _VALID, serve)
        return made

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=_BUFFER)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SAY):
                said = (await reader.readline()).decode(errors="replace").strip()
            until, serve = self._tickets.pop(said, (0.0, None))
            if serve is None or until < self._world.monotonic():
                log.warning("tunnel.refused", peer=str(writer.get_extra_info("peername")))
                return
            await serve(reader, writer)
        except (OSError, TimeoutError, ValueError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
