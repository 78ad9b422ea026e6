"""A loop whose clock jumps: when nothing is ready, the next timer's time has come.

Leases of half a minute cost nothing, a loaded machine changes nothing, and one
seed gives one order of events. That asks for a single thread: what would go to
a thread runs in place, and the databases take their clock from the loop.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kilonova.agent.sqlite_writer import SqliteWriter
from kilonova.db.engine import Database

T = TypeVar("T")

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC).timestamp()


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0

    def time(self) -> float:
        return self._seconds

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            scheduled = [handle._when for handle in self._scheduled if not handle._cancelled]  # type: ignore[attr-defined]
            if not scheduled:
                raise RuntimeError("Everything waits for something that will never come.")
            self._seconds = max(self._seconds, min(scheduled))
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def now() -> dt.datetime:
    return dt.datetime.fromtimestamp(START + asyncio.get_running_loop().time(), dt.UTC).replace(tzinfo=None)


def on_this_clock(db: Database) -> Database:
    """Let the database's clock be the loop's."""

    def julianday(_: str) -> float:
        return (START + asyncio.get_running_loop().time()) / 86400 + 2440587.5

    db.on_connect(lambda connection: connection.create_function("julianday", 1, julianday))
    return db


class InlineWriter(SqliteWriter):
    """Each job in a transaction of its own, in the caller's thread."""

    _connection: sqlite3.Connection | None = None

    @classmethod
    def instead_of(cls, other: SqliteWriter) -> InlineWriter:
        return cls(other._path, synchronous="OFF", schema=other._schema)

    async def start(self) -> None:
        self._connection = self._connect()

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
            self._connection = None

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        assert self._connection is not None
        ((value, error),) = self._commit(self._connection, [job])
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]
