"""Guests' serial lines, through libvirt: a stream on one side, connections of the tunnel's on the other.

libvirt calls back in its own thread when something can be read; writing goes through the pool of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

import libvirt

from kilonova.agent.libvirt import guests
from kilonova.agent.libvirt.connection import Connection
from kilonova.errors import HostFailure, Transient

_CHUNK = 16 * 1024
_HELD = 64 * 1024
"""Bytes read of a line that its reader has not taken, before reading pauses."""
_PATIENCE = 5.0
"""Seconds that one reader may keep the others waiting."""
_RETRY = 0.01
"""Seconds until writing to a full line is tried again."""
_EVENTS = libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_HANGUP | libvirt.VIR_STREAM_EVENT_ERROR
_NOT_NOW = -2


class SerialLines:
    """The lines that are open now. All who are at a guest's line see the same, and each may type."""

    def __init__(self, connection: Connection, deployment: str) -> None:
        self._connection = connection
        self._deployment = deployment
        self._lines: dict[str, _Line] = {}

    async def serve(self, uuid: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry both ways until either end is closed. Raises OSError."""
        line = self._lines.get(uuid)
        if line is None or line.over:
            line = self._lines[uuid] = _Line(self._connection, uuid, self._deployment)
        line.users += 1
        try:
            await line.join(reader, writer)
        finally:
            line.users -= 1
            if line.users == 0:
                if self._lines.get(uuid) is line:
                    del self._lines[uuid]
                await line.close()


class _Line:
    """One guest's. Opening it takes it from whoever had it: nobody knows whether they are still there."""

    def __init__(self, connection: Connection, uuid: str, deployment: str) -> None:
        self.users = 0
        self._connection = connection
        self._uuid = uuid
        self._deployment = deployment
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.Lock()
        self._stream: Any = None
        self._giving: asyncio.Task[None] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._read: asyncio.Queue[bytes] = asyncio.Queue()
        self._received = 0
        """Bytes; written by libvirt's thread alone, as `_taken` is by ours."""
        self._taken = 0
        self._paused = False

    @property
    def over(self) -> bool:
        """The guest has closed it."""
        return self._giving is not None and self._giving.done()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises OSError."""
        async with self._opening:
            if self._giving is None:
                try:
                    self._stream = await self._connection.call(f"opening the serial line of {self._uuid}", self._open)
                except (HostFailure, Transient) as error:
                    raise OSError(error.message) from error
                self._giving = asyncio.create_task(self._give())
        self._writers.add(writer)
        typing = asyncio.create_task(self._type(reader))
        try:
            await asyncio.wait({typing, self._giving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(writer)
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)

    async def close(self) -> None:
        if self._giving is None:
            return
        self._giving.cancel()
        await asyncio.gather(self._giving, return_exceptions=True)
        with contextlib.suppress(HostFailure, Transient):
            await self._connection.call("closing a serial line", self._close)

    def _open(self, handle: Any) -> Any:
        domain = guests.must_find(handle, self._uuid, self._deployment)
        stream = handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        stream.eventAddCallback(_EVENTS, self._event, None)
        return stream

    def _close(self, _handle: Any) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.eventRemoveCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.abort()

    def _event(self, stream: Any, events: int, _opaque: object) -> None:
        """In libvirt's thread."""
        data: Any = b""
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            try:
                data = stream.recv(_CHUNK)
            except libvirt.libvirtError:
                data = b""
            if data == _NOT_NOW:
                return
            self._received += len(data)
            if self._received - self._taken > _HELD and not self._paused:
                self._paused = True
                stream.eventUpdateCallback(_EVENTS & ~libvirt.VIR_STREAM_EVENT_READABLE)
        if not data:
            with contextlib.suppress(libvirt.libvirtError):
                stream.eventRemoveCallback()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._read.put_nowait, data)

    async def _give(self) -> None:
        while data := await self._read.get():
            for writer in tuple(self._writers):
                writer.write(data)
            for writer in tuple(self._writers):
                await self._drain(writer)
            self._taken += len(data)
            if self._paused and self._received - self._taken <= _HELD // 2:
                self._paused = False
                with contextlib.suppress(HostFailure, Transient):
                    await self._connection.call("reading on", lambda _handle: self._stream.eventUpdateCallback(_EVENTS))

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        """Whoever takes nothing for long leaves, rather than keep the others waiting."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await writer.drain()
        except (OSError, TimeoutError):
            self._writers.discard(writer)
            writer.transport.abort()

    async def _type(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            while data:
                sent = await self._connection.call("writing to a serial line", partial(self._send, data))
                if sent == _NOT_NOW:
                    await asyncio.sleep(_RETRY)
                else:
                    data = data[sent:]

    def _send(self, data: bytes, _handle: Any) -> int:
        return int(self._stream.send(data))
