"""What a simulated guest shows: a small picture over RFB, and a serial line that echoes.

Enough of RFB 3.8 for a viewer: no authentication, true colour at 32 bits, raw rectangles.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable

WIDTH, HEIGHT = 320, 200
_BANDS = 8
_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
Shifts = tuple[int, int, int]
"""Of red, green and blue in a pixel of 32 bits."""


def colours(name: str) -> list[tuple[int, int, int]]:
    """Red, green and blue of the bars, from above. They depend on the server, so that two screens look different."""
    seed = zlib.crc32(name.encode())
    # Never black, which is what a screen is before anything was drawn.
    bars = [(seed >> band * 3 & 7) or 1 for band in range(_BANDS)]
    return [(255 if bar & 1 else 0, 255 if bar & 2 else 0, 255 if bar & 4 else 0) for bar in bars]


def picture(name: str, shifts: Shifts = (16, 8, 0)) -> bytes:
    """WIDTH x HEIGHT. The bits that no colour has are set: some viewers take them for how opaque a pixel is."""
    unused = 0xFFFFFFFF ^ sum(0xFF << shift for shift in shifts)
    pixels = [unused + sum(part << shift for part, shift in zip(bar, shifts, strict=True)) for bar in colours(name)]
    return b"".join(struct.pack("<I", pixel) * (WIDTH * HEIGHT // _BANDS) for pixel in pixels)


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
        shifts = (16, 8, 0)
        while True:
            shifts = await _message(name, shifts, reader, writer)
            await writer.drain()
    except asyncio.IncompleteReadError:
        return


async def _message(name: str, shifts: Shifts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Shifts:
    """Take one of the viewer's messages; returns the format of pixels that it wants from then on."""
    match (await reader.readexactly(1))[0]:
        case 0:
            bits, _, big_endian, true_colour, *_, red, green, blue = struct.unpack(
                ">xxxBBBBHHHBBBxxx", await reader.readexactly(19)
            )
            if (bits, big_endian, true_colour) != (32, 0, 1) or not {red, green, blue} <= {0, 8, 16, 24}:
                raise ValueError("a format of pixels that no viewer was told of")
            return red, green, blue
        case 2:
            (count,) = struct.unpack(">xH", await reader.readexactly(3))
            await reader.readexactly(4 * count)
        case 3:
            (incremental,) = struct.unpack(">B8x", await reader.readexactly(9))
            if not incremental:
                writer.write(struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + picture(name, shifts))
        case 4:
            await reader.readexactly(7)
        case 5:
            await reader.readexactly(5)
        case 6:
            (length,) = struct.unpack(">3xI", await reader.readexactly(7))
            await reader.readexactly(length)
        case _:
            raise ValueError("a message that no viewer was told of")
    return shifts


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
