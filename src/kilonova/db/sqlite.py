"""SQLite for an event loop: statements mostly stay on it, transactions that wait together are committed together.

A point statement takes SQLite some 10 microseconds; handing it to a thread and
back takes 200 on the machines this was measured on. So statements run where they
are asked for, except: COMMIT, which waits for the disk, goes to the connection's
thread; a read that passes its budget is stopped and run again in the thread; and
a lock held by another process is waited for without blocking anybody.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.db import patterns
from kilonova.db.prepared import Prepared, Rows, Statements

T = TypeVar("T")

BUDGET = 0.005
"""Seconds that a read may take of the event loop."""

STEPS = 5000
"""SQLite's own instructions between two looks at the clock, some 0.1 ms."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another process's lock."""

GROUP = 64
"""Transactions that are committed together at most."""

GROUP_TIME = 0.01
"""Seconds after which a group is committed, whoever waits."""

CHUNK = 64
"""Rows between two looks at the clock."""

_BUSY = ("SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT")


class _Long(Exception):
    """The rows read so far; the rest takes too long for the event loop."""

    def __init__(self, rows: list[Any]) -> None:
        super().__init__()
        self.rows = rows


class _Cursor(sqlite3.Cursor):
    """Reads all rows at once, so that what an execution costs happens inside of it."""

    _rows: list[Any] = []  # noqa: RUF012  # nothing is ever added to it

    def execute(self, sql: str, parameters: Any = ()) -> Self:
        super().execute(sql, parameters)
        self._rows = super().fetchall() if self.description else []
        return self

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        count = size or self.arraysize
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows


class _Raw(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def create_function(self, name: str, narg: int, func: Any, *, deterministic: bool = False) -> None:
        if name == "regexp":
            # The dialect's own is Python's engine, which one expression of a caller could keep busy for hours.
            func = patterns.search
        super().create_function(name, narg, func, deterministic=deterministic)


class File:
    """One database file and how it is opened. `on_statement` and `on_connect` are told of what happens."""

    def __init__(
        self, path: str, pragmas: Sequence[str], options: dict[str, Any], on_statement: Callable[[str], None]
    ) -> None:
        self._path = path
        self._pragmas = (*pragmas, "busy_timeout=0")
        self.on_statement = on_statement
        self.on_connect: Callable[[sqlite3.Connection], None] | None = None
        self.engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.pool.NullPool, **options)
        self.statements = Statements(self.engine.dialect)

        @sa.event.listens_for(self.engine, "before_cursor_execute")
        def before(conn: sa.Connection, cursor: Any, statement: str, *rest: Any) -> None:
            owner = conn.info.get("connection")
            if owner is None or not owner.repeating:
                on_statement(statement)

    def _connect(self) -> sqlite3.Connection:
        raw = sqlite3.connect(
            self._path,
            isolation_level=None,
            check_same_thread=False,
            timeout=LOCK_TIMEOUT,
            factory=_Raw,
            cached_statements=256,
        )
        for pragma in self._pragmas:
            raw.execute(f"PRAGMA {pragma}")
        if self.on_connect is not None:
            self.on_connect(raw)
        return raw

    async def open(self, *, budgeted: bool) -> Connection:
        pool = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        general = await asyncio.get_running_loop().run_in_executor(pool, self.engine.connect)
        return Connection(self, general, pool, budgeted=budgeted)


class Connection:
    """What transactions get as `tx`: of SQLAlchemy's asynchronous connection, what they use.

    `budgeted` for connections that only read: a statement over budget is stopped and
    runs again in the thread. A writing one must not be stopped, SQLite would undo its transaction.
    """

    def __init__(self, file: File, general: sa.Connection, pool: ThreadPoolExecutor, *, budgeted: bool) -> None:
        raw = general.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        self._raw = raw
        self._cursor = sqlite3.Connection.cursor(raw)
        self._general = general
        self._file = file
        self._pool = pool
        self._stop_at = float("inf")
        self._budgeted = budgeted
        self.repeating = False
        """A statement is being executed that was counted already."""
        general.info["connection"] = self
        if budgeted:
            raw.set_progress_handler(self._over_budget, STEPS)

    @property
    def dialect(self) -> sa.Dialect:
        return self._general.dialect

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        if parameters is None or isinstance(parameters, dict):
            given: Mapping[str, Any] = parameters or {}
            prepared = self._file.statements.get(statement, given)
            if prepared is not None:
                try:
                    return await self._perform(self._execute, prepared, statement, given)
                except _Long as long:
                    return await self.run(self._rest, prepared, long.rows)
        return await self._perform(self._general.execute, statement, parameters)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    async def scalars(self, statement: Any, parameters: Any = None) -> Any:
        return (await self.execute(statement, parameters)).scalars()

    async def exec_driver_sql(self, sql: str, parameters: Any = None) -> Any:
        return await self._perform(self._general.exec_driver_sql, sql, parameters)

    async def run_sync(self, work: Callable[..., T], *args: Any) -> T:
        """Call `work` with the connection, in the thread."""
        return await self.run(work, self._general, *args)

    def _execute(self, prepared: Prepared, statement: Any, parameters: Mapping[str, Any]) -> Any:
        cursor = self._cursor
        try:
            cursor.execute(prepared.sql, prepared.bind(parameters))
            rows = self._fetch(cursor)
        except sqlite3.Error as error:
            if error.sqlite_errorname in _BUSY or error.sqlite_errorname == "SQLITE_INTERRUPT":
                raise
        except (KeyError, TypeError, ValueError):
            pass
        except _Long:
            self._file.on_statement(prepared.sql)
            raise
        else:
            self._file.on_statement(prepared.sql)
            return prepared.result(rows, cursor.rowcount, cursor.lastrowid)
        # What fails has done nothing: it fails the general way too, with the errors that callers know.
        return self._general.execute(statement, parameters)

    def _fetch(self, cursor: sqlite3.Cursor) -> list[Any]:
        """All rows. Raises _Long with those there are when half of the budget is gone."""
        rows = cursor.fetchmany(CHUNK)
        if len(rows) < CHUNK:
            return rows
        while True:
            if time.perf_counter() > self._stop_at - BUDGET / 2:
                raise _Long(rows)
            more = cursor.fetchmany(CHUNK)
            rows += more
            if len(more) < CHUNK:
                return rows

    def _rest(self, prepared: Prepared, rows: list[Any]) -> Rows:
        rows += self._cursor.fetchall()
        return prepared.result(rows, len(rows), None)

    async def _perform(self, work: Callable[..., T], *args: Any) -> T:
        """Do `work` here if it is quick, elsewhere if not, later if another process holds the lock."""
        give_up = 0.0
        while True:
            try:
                if not self._budgeted:
                    return work(*args)
                self._stop_at = time.perf_counter() + BUDGET
                return work(*args)
            except (sqlite3.OperationalError, sqlalchemy.exc.OperationalError) as error:
                name = _name(error)
                if name == "SQLITE_INTERRUPT" and self._budgeted:
                    break
                if name not in _BUSY:
                    raise
                give_up = give_up or time.monotonic() + LOCK_TIMEOUT
                if time.monotonic() > give_up:
                    raise
            finally:
                self._stop_at = float("inf")
                self.repeating = False
            await asyncio.sleep(0.005)
            self.repeating = True
        self.repeating = True
        try:
            return await self.run(work, *args)
        finally:
            self.repeating = False

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Do `work` in the connection's thread."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The connection goes to another next: not before the thread has let go of it.
            if self._budgeted:
                self._raw.interrupt()
            await asyncio.wait([future])
            raise

    def _over_budget(self) -> bool:
        return time.perf_counter() > self._stop_at

    # -- for those who own it
    async def begin(self) -> None:
        await self.exec_driver_sql("BEGIN IMMEDIATE")

    def savepoint(self) -> None:
        self._cursor.execute("SAVEPOINT one")

    def release(self) -> None:
        self._cursor.execute("RELEASE one")

    def undo_savepoint(self) -> None:
        self._cursor.execute("ROLLBACK TO one")
        self._cursor.execute("RELEASE one")

    async def commit(self) -> None:
        """Raises sqlalchemy.exc.OperationalError; then nothing of the transaction is kept."""
        try:
            await self.run(self._raw.commit)
        except sqlite3.Error as error:
            raise sqlalchemy.exc.OperationalError("COMMIT", None, error) from error

    def rollback(self) -> None:
        if self._raw.in_transaction:
            self._raw.rollback()

    async def close(self) -> None:
        self._cursor.close()
        await self.run(self._general.close)
        self._pool.shutdown(wait=False)


def _name(error: sqlite3.OperationalError | sqlalchemy.exc.OperationalError) -> str | None:
    original = error.orig if isinstance(error, sqlalchemy.exc.OperationalError) else error
    return getattr(original, "sqlite_errorname", None)


class Readers:
    """Up to `size` connections that only read. They are taken for one piece of work each."""

    def __init__(self, file: File, size: int) -> None:
        self._file = file
        self._size = size
        self._opened: list[Connection] = []
        self._opening = 0
        self._free: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection]] = deque()

    async def take(self) -> Connection:
        if self._free:
            return self._free.pop()
        if len(self._opened) + self._opening < self._size:
            self._opening += 1
            try:
                connection = await self._file.open(budgeted=True)
            finally:
                self._opening -= 1
            self._opened.append(connection)
            return connection
        future: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give_back(future.result())
            raise

    def give_back(self, connection: Connection) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(connection)
                return
        self._free.append(connection)

    async def close(self) -> None:
        opened, self._opened, self._free = self._opened, [], []
        for connection in opened:
            await connection.close()


Work = Callable[[Connection], Awaitable[Any]]


class _Entry:
    __slots__ = ("context", "error", "future", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.context = contextvars.copy_context()
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """The one connection that writes.

    Transactions that wait while a COMMIT is on its way to the disk run one after the other,
    each behind a savepoint of its own, and share the next COMMIT. Nobody is told
    before it has happened, so each is as atomic and as durable as alone.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._waiting: deque[_Entry] = deque()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()
        """Held while anything is written."""

    async def write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` in a transaction, whatever becomes of the caller."""
        entry = _Entry(work)
        self._waiting.append(entry)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
        try:
            result: T = await asyncio.shield(entry.future)
        except asyncio.CancelledError:
            # The caller is gone, the decision is not: let it end, and let nobody miss its failure.
            entry.future.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise
        return result

    async def _run(self) -> None:
        async with self.lock:
            while self._waiting:
                await self._group()

    async def _group(self) -> None:
        """One transaction of SQLite's for those who wait and those who come meanwhile."""
        entries: list[_Entry] = []
        connection = None
        try:
            if self._connection is None:
                self._connection = await self._file.open(budgeted=False)
            connection = self._connection
            await connection.begin()
            clock = asyncio.get_running_loop().time
            until = clock() + GROUP_TIME
            while self._waiting and len(entries) < GROUP and (not entries or clock() < until):
                entry = self._waiting.popleft()
                entries.append(entry)
                await self._one(connection, entry, alone=len(entries) == 1)
                if not connection.in_transaction:
                    break
            if connection.in_transaction:
                await connection.commit()
        except BaseException as error:
            if connection is not None:
                connection.rollback()
            if not entries and self._waiting:
                entries.append(self._waiting.popleft())
            for entry in entries:
                entry.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            for entry in entries:
                _tell(entry)

    async def _one(self, connection: Connection, entry: _Entry, *, alone: bool) -> None:
        """Do one entry's work. A failure is undone: all when it is the first, else from its savepoint on."""
        if not alone:
            connection.savepoint()
        try:
            task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(
                _await(entry.work, connection), context=entry.context
            )
            entry.result = await task
            if not connection.in_transaction:
                raise sqlalchemy.exc.OperationalError("", None, sqlite3.OperationalError("the transaction was undone"))
            if not alone:
                connection.release()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not connection.in_transaction and not alone:
                # SQLite has undone everything (disk full), the others' work too.
                raise
            entry.error = error
            if alone:
                connection.rollback()
            else:
                connection.undo_savepoint()

    async def close(self) -> None:
        async with self.lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        # Opened again on another event loop, it waits on that one.
        self.lock = asyncio.Lock()


async def _await(work: Work, connection: Connection) -> Any:
    return await work(connection)


def _tell(entry: _Entry) -> None:
    if entry.future.done():
        return
    if entry.error is None:
        entry.future.set_result(entry.result)
    elif isinstance(entry.error, asyncio.CancelledError):
        entry.future.cancel()
    else:
        entry.future.set_exception(entry.error)
