"""One session's bytes, from a browser's WebSocket to a guest's console and back.

Little is held of either direction: whoever does not take what is sent to it makes the other side wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

HOST_CLOSED: Final = 4502
_POLLING: Final = frozenset((0, 2, 3, 150, 248))
"""First bytes of what a viewer says by itself (RFB): formats, and that it wants more of the picture."""


class Line:
    """The connection to a console on its host."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, buffer: int) -> None:
        self.reader = reader
        self.writer = writer
        self._buffer = buffer
        self._below: asyncio.StreamWriter | None = None

    @classmethod
    async def open(cls, host: str, port: int, ticket: str | None, *, buffer: int, timeout: float) -> Line:
        """Raises OSError."""
        async with asyncio.timeout(timeout):
            # asyncio reads up to twice the limit.
            reader, writer = await asyncio.open_connection(host, port, limit=buffer // 2)
            writer.transport.set_write_buffer_limits(high=buffer)
            if ticket is not None:
                writer.write(f"{ticket}\n".encode())
        return cls(reader, writer, buffer)

    async def encrypt(self, context: ssl.SSLContext) -> None:
        """The same connection by TLS from here on. Raises OSError."""
        loop = asyncio.get_running_loop()
        # A reader of its own: that of the plain connection would hold back the wrong transport.
        reader = asyncio.StreamReader(limit=self._buffer // 2)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport = await loop.start_tls(self.writer.transport, protocol, context)
        if transport is None:
            raise ConnectionError("the connection ended meanwhile")
        protocol.connection_made(transport)
        transport.set_write_buffer_limits(high=self._buffer)
        # A writer that nobody has any more closes what it wrote to.
        self._below = self.writer
        self.reader, self.writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def close(self) -> None:
        # What the host has not taken by now would be kept for as long as it takes nothing.
        self.writer.transport.abort()


async def to_guest(receive: Receive, line: Line, used: Callable[[bytes], None]) -> int | None:
    """Until the browser leaves (None) or the host closes. `used` is told of what arrives."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return None
        data: bytes = message.get("bytes") or (message.get("text") or "").encode()
        if not data:
            continue
        used(data)
        try:
            line.writer.write(data)
            await line.writer.drain()
        except OSError:
            return HOST_CLOSED


async def to_browser(line: Line, send: Send, chunk: int) -> int | None:
    """Until the host closes, or the browser cannot be sent to any more (None)."""
    while True:
        try:
            data = await line.reader.read(chunk)
        except OSError:
            return HOST_CLOSED
        if not data:
            return HOST_CLOSED
        try:
            await send({"type": "websocket.send", "bytes": data})
        except (OSError, RuntimeError):
            return None


def is_use(kind: str, data: bytes) -> bool:
    """Whether the user did it, and not the viewer alone, which asks for the picture without end."""
    return kind != "vnc" or data[0] not in _POLLING


async def until_any(*ways: Awaitable[int | None]) -> int | None:
    """What the first of them to end says; the others are ended."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # An end that has a reason counts before the connection that broke with it.
        codes = [task.result() for task in done]
        return next((code for code in codes if code is not None), None)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
