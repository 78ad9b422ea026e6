"""What a simulated guest shows: a small picture over RFB, and a serial line that echoes.

Enough of RFB 3.8 for a viewer: no authentication, true colour at 32 bits, raw rectangles.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable

WIDTH, HEIGHT = 320, 200
_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)


def picture(name: str) -> bytes:
    """Bars in colours that depend on the server, so that two screens look different. WIDTH x HEIGHT, BGRX."""
    seed = zlib.crc32(name.encode())
    rows = []
    for band in range(8):
        colour = (seed >> band * 3 & 7) or 1
        pixel = bytes((255 if colour & 4 else 0, 255 if colour & 2 else 0, 255 if colour & 1 else 0, 0))
        rows.append(pixel * WIDTH * (HEIGHT // 8))
    return b"".join(rows)


async def screen(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a VNC server for one viewer until it leaves."""
    try:
        writer.write(b"RFB 003.008\n")
        await reader.readexactly(12)
        writer.write(b"\x01\x01")
        await reader.readexactly(1)
        writer.write(bytes(4))
        await reader.readexactly(1)
        title = name.encode()
        writer.write(struct.pack(">HH", WIDTH, HEIGHT) + _FORMAT + struct.pack(">I", len(title)) + title)
        while True:
            await _message(name, reader, writer)
            await writer.drain()
    except asyncio.IncompleteReadError:
        return


async def _message(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match (await reader.readexactly(1))[0]:
        case 0:
            await reader.readexactly(19)
        case 2:
            (count,) = struct.unpack(">xH", await reader.readexactly(3))
            await reader.readexactly(4 * count)
        case 3:
            (incremental,) = struct.unpack(">B8x", await reader.readexactly(9))
            if not incremental:
                writer.write(struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + picture(name))
        case 4:
            await reader.readexactly(7)
        case 5:
            await reader.readexactly(5)
        case 6:
            (length,) = struct.unpack(">3xI", await reader.readexactly(7))
            await reader.readexactly(length)
        case _:
            raise ValueError("a message that no viewer was told of")


async def line(say: Callable[[str], None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo what is typed; `say` gets each complete line."""
    writer.write(b"simulated guest: whatever you type comes back\r\n# ")
    typed = b""
    while data := await reader.read(4096):
        writer.write(data.replace(b"\r", b"\r\n# "))
        typed += data
        *lines, typed = typed.split(b"\r")
        typed = typed[-4096:]
        for each in lines:
            say(each.decode(errors="replace"))
        await writer.drain()
