"""Messages that only make something sooner: whoever they are for finds out by himself."""

from __future__ import annotations

import asyncio
import contextlib

from kilonova.bus import Bus
from kilonova.bus.messages import Message
from kilonova.errors import Transient

PATIENCE = 2.0
"""Seconds that a request waits for the broker to take a hint. Of a cluster the node that holds the queue may hang."""


async def hint(bus: Bus, address: str, message: Message) -> None:
    """Send it, unless the broker is away or does not take it in time."""
    with contextlib.suppress(Transient, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await bus.send(address, message)
