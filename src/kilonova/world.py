"""Time, ids and randomness: one small object, so that tests and the simulator own them."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
import uuid


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
        return str(uuid.uuid4())
