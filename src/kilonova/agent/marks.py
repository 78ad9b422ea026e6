"""A server's point of no repetition, kept in its host's journal."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from kilonova.agent.journal import Journal
from kilonova.errors import HostFailure


def no_journal(host: str, error: sqlite3.Error) -> str:
    return f"Host '{host}' cannot take work: its journal cannot be written ({error})."


class ServerMarks:
    """`commands.Marks` over the journal."""

    def __init__(self, journal: Journal, host: str, server_uuid: str) -> None:
        self._journal = journal
        self._host = host
        self._server = server_uuid

    async def get(self) -> str | None:
        with self._legible():
            return await self._journal.marked(self._host, self._server)

    async def set(self, mark: str) -> None:
        with self._legible():
            await self._journal.mark(self._host, self._server, mark)

    @contextlib.contextmanager
    def _legible(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise HostFailure(no_journal(self._host, error)) from error
