"""One SQLite file, one thread, group commit: everything that waits is written in one transaction."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]
_Entry = tuple[Job, "asyncio.Future[Any]"]

_BATCH = 500
"""Jobs in one transaction at most, so that the first of a long burst does not wait for the last."""
_IDLE = 1.0
"""Seconds without work after which the write-ahead log is folded into the file, and with it what was erased."""


class SqliteWriter:
    """Runs jobs against the file in order. A job's caller resumes when the job is committed.

    A job that raises leaves the others of its batch alone, so it has to check
    before it writes. An error of the file itself (disk full) fails the whole
    batch and nothing of it is stored.
    """

    def __init__(self, path: Path | str, *, synchronous: str, schema: str) -> None:
        self._path = str(path)
        self._synchronous = synchronous
        self._schema = schema
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.commits = 0

    async def start(self) -> None:
        """Open the file, making it if needed. Raises sqlite3.Error when it cannot be used."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(self._loop, opened), name="sqlite-writer", daemon=True)
        self._thread.start()
        await opened

    async def close(self) -> None:
        """Write what waits, fold the log into the file, and close it."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    def run(self, job: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run `job` in the next transaction; its value once that is committed. A caller that gives up stops nothing."""
        if self._thread is None or self._loop is None:
            raise RuntimeError(f"{self._path} is not open")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((job, future))
        return future

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA secure_delete=ON")
        connection.executescript(self._schema)
        return connection

    def _run(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            loop.call_soon_threadsafe(opened.set_exception, error)
            return
        loop.call_soon_threadsafe(opened.set_result, None)
        try:
            self._work(connection, loop)
        finally:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

    def _work(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        dirty = False
        while True:
            try:
                entry = self._queue.get(timeout=_IDLE if dirty else None)
            except queue.Empty:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                dirty = False
                continue
            batch: list[_Entry] = []
            while entry is not None and len(batch) < _BATCH:
                batch.append(entry)
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                if entry is not None:
                    batch.append(entry)
            if batch:
                dirty = True
                outcomes = self._commit(connection, [job for job, _ in batch])
                try:
                    loop.call_soon_threadsafe(_resolve, batch, outcomes)
                except RuntimeError:
                    # The loop ended without close(): nobody is left to be told, what is written is written.
                    return
            if entry is None:
                return

    def _commit(self, connection: sqlite3.Connection, jobs: list[Job]) -> list[tuple[Any, BaseException | None]]:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                try:
                    outcomes.append((job(connection), None))
                except sqlite3.Error:
                    raise
                except Exception as error:
                    outcomes.append((None, error))
            connection.execute("COMMIT")
            self.commits += 1
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [(None, error)] * len(jobs)
        return outcomes


def _resolve(batch: list[_Entry], outcomes: list[tuple[Any, BaseException | None]]) -> None:
    for (_, future), (value, error) in zip(batch, outcomes, strict=True):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
