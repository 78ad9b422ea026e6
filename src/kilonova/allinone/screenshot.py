"""A picture of a guest's screen, taken as a browser would take it: through the console's address."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from kilonova.allinone.errors import CloudError

TIMEOUT = 30.0
"""Seconds for each answer."""
_LARGEST = 8192
"""Pixels of a side."""
_FORMAT = struct.pack(">xxxBBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)
"""Red first, in pixels of four bytes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`pixels`: red, green, blue and a byte of no meaning for each, line by line from above."""

    width: int
    height: int
    pixels: bytes

    def colours(self) -> int:
        """How many there are: one in a picture that shows nothing."""
        return len({self.pixels[at : at + 3] for at in range(0, len(self.pixels), 4)})

    def png(self) -> bytes:
        lines = bytearray()
        for line in range(self.height):
            row = bytearray(self.pixels[line * self.width * 4 : (line + 1) * self.width * 4])
            del row[3::4]
            lines += b"\0" + row
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(lines))), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in parts
        )


def take(url: str) -> Picture:
    """Uses the address up. Raises CloudError when there is no picture."""
    parts = urlsplit(url)
    path = parse_qs(parts.query)["path"][0]
    target = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}/{path.lstrip('/')}"
    try:
        with connect(target, compression=None, open_timeout=TIMEOUT) as socket:
            return _Viewer(socket).picture()
    except ConnectionClosed as error:
        said = error.rcvd.reason if error.rcvd is not None else ""
        raise CloudError(f"the console closed before it showed anything: {said or error}") from None
    except (OSError, WebSocketException, ValueError) as error:
        raise CloudError(f"the console shows nothing: {error}") from None


class _Viewer:
    """As much of RFB 3.8 as one picture takes."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._held = bytearray()

    def picture(self) -> Picture:
        self._take(12)
        self._socket.send(b"RFB 003.008\n")
        kinds = self._take(self._take(1)[0])
        if 1 not in kinds:
            raise ValueError("it asks for a password")
        self._socket.send(b"\x01")
        if any(self._take(4)):
            raise ValueError("it lets nobody in")
        self._socket.send(b"\x01")
        width, height, name = struct.unpack(">HH16xI", self._take(24))
        self._take(name)
        if not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
            raise ValueError(f"a screen of {width} x {height}")
        self._socket.send(b"\x00" + _FORMAT)
        self._socket.send(struct.pack(">BxHi", 2, 1, 0))
        self._socket.send(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        return Picture(width, height, self._update(width, height))

    def _update(self, width: int, height: int) -> bytes:
        pixels = bytearray(4 * width * height)
        missing = width * height
        while missing > 0:
            match self._take(1)[0]:
                case 0:
                    (rectangles,) = struct.unpack(">xH", self._take(3))
                    for _ in range(rectangles):
                        x, y, w, h, encoding = struct.unpack(">HHHHi", self._take(12))
                        if encoding != 0 or x + w > width or y + h > height:
                            raise ValueError("a picture that was not asked for")
                        data = self._take(4 * w * h)
                        for line in range(h):
                            at = 4 * ((y + line) * width + x)
                            pixels[at : at + 4 * w] = data[4 * line * w : 4 * (line + 1) * w]
                        missing -= w * h
                case 2:
                    pass
                case 3:
                    (length,) = struct.unpack(">3xI", self._take(7))
                    self._take(length)
                case other:
                    raise ValueError(f"a message of kind {other}")
        return bytes(pixels)

    def _take(self, count: int) -> bytes:
        while len(self._held) < count:
            data = self._socket.recv(timeout=TIMEOUT)
            self._held += data if isinstance(data, bytes) else data.encode()
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken


def save(url: str, path: Path) -> Picture:
    """Take one and write it as PNG."""
    picture = take(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture.png())
    return picture
