"""Time, ids and randomness: one small object, so that tests and the simulator own them."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import time

_VERSION_4 = 0x4 << 76 | 0x2 << 62
_FREE = ~(0xF << 76 | 0x3 << 62)


class World:
    """The real world; `testing/` has one with a clock of its own."""

    def __init__(self, seed: int | None = None) -> None:
        self.random = random.Random(seed)

    def now(self) -> dt.datetime:
        """UTC, naive (as the database stores it), microseconds kept."""
        return dt.datetime.now(dt.UTC).replace(tzinfo=None)

    def monotonic(self) -> float:
        """Seconds; only differences mean anything."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def uuid(self) -> str:
        """A random one (version 4). As `uuid.uuid4` makes it, in half the time: every request gets one."""
        text = f"{int.from_bytes(os.urandom(16), 'big') & _FREE | _VERSION_4:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
