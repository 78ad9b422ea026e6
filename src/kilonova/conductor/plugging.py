"""Who waits for a server's ports in this process. No event is kept: who waits looks at Networking by himself, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Plugging:
    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def expect(self, server_uuid: str) -> Iterator[asyncio.Event]:
        """Set whenever Networking tells of the server's ports."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(server_uuid, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(server_uuid, None)

    def on_event(self, server_uuid: str) -> None:
        for event in self._waiting.get(server_uuid, ()):
            event.set()
