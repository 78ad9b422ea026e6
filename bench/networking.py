"""Networking in memory that counts what Compute asks of it, and tells the time for which Compute waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kilonova.networking import Document, Filter
from kilonova.testing.network import FakeNetworking

ANSWER = 0.005
"""Seconds that each call takes: about what a quick Networking needs for a list."""


@dataclass(slots=True)
class Calls:
    """What one action cost: calls by method and collection; seconds in all, and of them waiting for Networking."""

    calls: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    waited: float = 0.0


class WatchedNetworking(FakeNetworking):
    def __init__(self, answer: float = ANSWER) -> None:
        super().__init__()
        self.answer = answer
        self.busy = 0.0
        """Seconds during which at least one call was under way."""
        self._under_way = 0
        self._since = 0.0

    @contextlib.asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        if not self._under_way:
            self._since = time.perf_counter()
        self._under_way += 1
        try:
            await asyncio.sleep(self.answer)
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.busy += time.perf_counter() - self._since

    @contextlib.contextmanager
    def watched(self) -> Iterator[Calls]:
        """Filled in at the end of the block."""
        found = Calls()
        before, busy, started = self.calls.copy(), self.busy, time.perf_counter()
        yield found
        found.calls = self.calls - before
        found.seconds = time.perf_counter() - started
        found.waited = self.busy - busy

    async def find(self, collection: str, filters: Mapping[str, Filter] | None = None) -> list[Document]:
        async with self._asked():
            return await super().find(collection, filters)

    async def show(self, collection: str, id: str) -> Document:
        async with self._asked():
            return await super().show(collection, id)

    async def create(self, collection: str, documents: Sequence[Document]) -> list[Document]:
        async with self._asked():
            return await super().create(collection, documents)

    async def update(self, collection: str, id: str, changes: Document) -> Document:
        async with self._asked():
            return await super().update(collection, id, changes)

    async def delete(self, collection: str, id: str) -> None:
        async with self._asked():
            await super().delete(collection, id)

    async def quota(self, project_id: str) -> Mapping[str, Mapping[str, int]]:
        async with self._asked():
            return await super().quota(project_id)
