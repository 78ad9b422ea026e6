"""An asynchronous SQLite connection that mostly stays on the event loop.

A point statement takes SQLite some 10 microseconds; handing it to a thread and
back takes 200 on the machines this was measured on. So statements run where they
are asked for, except: COMMIT, which waits for the disk, goes to the connection's
thread; a read that passes its budget is stopped and run again in the thread; and
a lock held by another process is waited for without blocking anybody.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from kilonova.db import patterns

T = TypeVar("T")

BUDGET = 0.005
"""Seconds that a read may take of the event loop."""

STEPS = 5000
"""SQLite's own instructions between two looks at the clock, some 0.1 ms."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another process's lock."""

Result = tuple[Sequence[Any] | None, list[Any], int | None, int]


class Cursor:
    """The part of aiosqlite's cursor that SQLAlchemy's adapter calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Sequence[Any] | None = None
        self.lastrowid: int | None = None
        self.rowcount = -1
        self.arraysize = 1
        self.row_factory = None

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Self:
        self._take(await self._connection.perform(self._connection.execute_sync, sql, parameters or ()))
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        self._take(await self._connection.perform(self._connection.executemany_sync, sql, list(parameters)))
        return self

    def _take(self, result: Result) -> None:
        self.description, self._rows, self.lastrowid, self.rowcount = result

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        count = size or self.arraysize
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    async def close(self) -> None:
        self._rows = []

    async def __aenter__(self) -> Self:
        return self


class Connection:
    """The part of aiosqlite's connection that SQLAlchemy's adapter calls.

    `budgeted` for connections that only read: a statement over budget is stopped and
    runs again in the thread. A writing one must not be stopped, SQLite would undo its transaction.
    """

    def __init__(self, raw: sqlite3.Connection, pool: ThreadPoolExecutor, *, budgeted: bool) -> None:
        self._raw = raw
        self._connection = raw
        self._pool = pool
        self._stop_at = float("inf")
        self._budgeted = budgeted
        self.isolation_level = raw.isolation_level
        if budgeted:
            raw.set_progress_handler(self._over_budget, STEPS)

    @classmethod
    async def open(cls, path: str, pragmas: Sequence[str], *, budgeted: bool) -> Connection:
        pool = ThreadPoolExecutor(1, thread_name_prefix="sqlite")

        def connect() -> sqlite3.Connection:
            raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=LOCK_TIMEOUT)
            for pragma in (*pragmas, "busy_timeout=0"):
                raw.execute(f"PRAGMA {pragma}")
            return raw

        raw = await asyncio.get_running_loop().run_in_executor(pool, connect)
        return cls(raw, pool, budgeted=budgeted)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Do `work` in the connection's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def perform(self, work: Callable[[str, Any], Result], sql: str, parameters: Any) -> Result:
        """Do `work` here if it is quick, elsewhere if not, later if another process holds the lock."""
        give_up = 0.0
        while True:
            try:
                return await self._attempt(work, sql, parameters)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname not in ("SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT"):
                    raise
                give_up = give_up or time.monotonic() + LOCK_TIMEOUT
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(0.005)

    async def _attempt(self, work: Callable[[str, Any], Result], sql: str, parameters: Any) -> Result:
        if not self._budgeted:
            return work(sql, parameters)
        self._stop_at = time.perf_counter() + BUDGET
        try:
            return work(sql, parameters)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_INTERRUPT":
                raise
        finally:
            self._stop_at = float("inf")
        return await self.run(work, sql, parameters)

    def _over_budget(self) -> bool:
        return time.perf_counter() > self._stop_at

    def execute_sync(self, sql: str, parameters: Any) -> Result:
        cursor = self._raw.execute(sql, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, rows, cursor.lastrowid, cursor.rowcount

    def executemany_sync(self, sql: str, rows: list[Any]) -> Result:
        cursor = self._raw.executemany(sql, rows)
        return cursor.description, [], cursor.lastrowid, cursor.rowcount

    def cursor(self) -> Cursor:
        return Cursor(self)

    async def execute(self, sql: str, parameters: Any = None) -> Cursor:
        return await Cursor(self).execute(sql, parameters)

    async def create_function(self, name: str, arguments: int, function: Any, **kw: Any) -> None:
        if name == "regexp":
            # The dialect's own is Python's engine, which one expression of a caller could keep busy for hours.
            function = patterns.search
        self._raw.create_function(name, arguments, function, **kw)

    async def commit(self) -> None:
        if self._raw.in_transaction:
            await self.run(self._raw.commit)

    async def rollback(self) -> None:
        if self._raw.in_transaction:
            self._raw.rollback()

    async def close(self) -> None:
        await self.run(self._raw.close)
        self._pool.shutdown(wait=False)

    def stop(self) -> None:
        """Called when the pool drops a connection without a running loop."""
        self._pool.submit(self._raw.close)
        self._pool.shutdown(wait=False)
