"""A guest's screen, through libvirt, where its port cannot be reached: guests of a namespace listen in there.

libvirt hands out a connection to the guest itself, so it is this guest's screen whatever its port has become.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import libvirt

from kilonova.agent.libvirt import guests
from kilonova.agent.libvirt.connection import Connection
from kilonova.errors import HostFailure, Transient

_CHUNK = 32 * 1024


class Screen:
    def __init__(self, connection: Connection, uuid: str, deployment: str) -> None:
        self._connection = connection
        self._uuid = uuid
        self._deployment = deployment

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry both ways until either end is closed. Raises OSError."""
        try:
            opened = await self._connection.call(f"opening the screen of {self._uuid}", self._open)
        except (HostFailure, Transient) as error:
            raise OSError(error.message) from error
        opened.setblocking(False)
        guest_reader, guest_writer = await asyncio.open_connection(sock=opened, limit=_CHUNK)
        guest_writer.transport.set_write_buffer_limits(high=_CHUNK)
        ways = {asyncio.create_task(_pump(reader, guest_writer)), asyncio.create_task(_pump(guest_reader, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            # What it has not taken by now, it never will.
            guest_writer.transport.abort()

    def _open(self, handle: Any) -> socket.socket:
        domain = guests.must_find(handle, self._uuid, self._deployment)
        return socket.socket(fileno=domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
