"""Transactions: opened here at the edge, handed down as `tx`.

`write(work)` runs `work(tx)` in one transaction, shielded from the caller's
cancellation (a client that hangs up must not leave half a decision) and again
from its start when the database chose it as a deadlock's victim, so `work` has
no effects but its statements. `read(work)` is the same without writing.

Inside a transaction nothing but `tx` may be awaited: `forbid_in_transaction`,
called by service clients and the bus, raises there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kilonova.db.sqlite import Connection as SqliteConnection

T = TypeVar("T")
Tx = AsyncConnection
Work = Callable[[Tx], Awaitable[T]]

RETRIES = 12
_DEADLOCK_MYSQL = {1205, 1213}
_DEADLOCK_POSTGRESQL = {"40001", "40P01"}

_in_transaction: contextvars.ContextVar[bool] = contextvars.ContextVar("in_transaction", default=False)


class CommitUnknown(Exception):
    """The connection was lost while COMMIT was under way: it may have happened or not."""


def forbid_in_transaction(what: str) -> None:
    """Raise when called inside a transaction: rows would stay locked for as long as `what` takes."""
    if _in_transaction.get():
        raise RuntimeError(f"{what} must not be awaited inside a transaction")


def _decode_json(text: str | bytes) -> Any:
    return msgspec.json.decode(text)


def _encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def async_url(url: str) -> sa.URL:
    """The URL with the asynchronous driver of its database; `mysql://` as in nova.conf means MariaDB by asyncmy.

    A password may hold `$` and other signs as they are.
    """
    parsed = sa.make_url(url)
    backend = parsed.get_backend_name()
    drivers = {
        "sqlite": "sqlite+aiosqlite",
        "mysql": "mysql+asyncmy",
        "mariadb": "mariadb+asyncmy",
        "postgresql": "postgresql+asyncpg",
    }
    if backend not in drivers:
        raise ValueError(f"database URL of kind {backend!r}: use sqlite, mysql, mariadb or postgresql")
    return parsed.set(drivername=drivers[backend])


class Database:
    """One database, its pools, and a count of the statements sent (`statements`)."""

    def __init__(self, url: str, *, pool_size: int = 10, synchronous: str = "FULL") -> None:
        self.url = async_url(url)
        self.statements = 0
        self.on_statement: Callable[[str], None] | None = None
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writing = asyncio.Lock()
        options: dict[str, Any] = {"json_serializer": _encode_json, "json_deserializer": _decode_json}
        if self.is_sqlite:
            self._writer = self._sqlite_engine(1, (f"synchronous={synchronous}",), options)
            self._reader = self._sqlite_engine(4, ("query_only=1",), options)
        else:
            level = "READ COMMITTED"
            self._writer = self._reader = create_async_engine(
                self.url,
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_recycle=600,
                pool_pre_ping=False,
                isolation_level=level,
                **options,
            )
            self._count(self._writer)

    def _sqlite_engine(self, size: int, pragmas: tuple[str, ...], options: dict[str, Any]) -> AsyncEngine:
        path = self.url.database or ":memory:"
        common = ("journal_mode=WAL", "foreign_keys=ON", "cache_size=-16000", *pragmas)

        async def connect(*args: object, **kw: object) -> SqliteConnection:
            return await SqliteConnection.open(path, common, budgeted="query_only=1" in pragmas)

        engine = create_async_engine(
            "sqlite+aiosqlite://",
            poolclass=sa.pool.AsyncAdaptedQueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=60,
            connect_args={"async_creator_fn": connect},
            **options,
        )
        self._count(engine)
        return engine

    def _count(self, engine: AsyncEngine) -> None:
        @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
        def before(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            self.statements += 1
            if self.on_statement is not None:
                self.on_statement(statement)

    async def close(self) -> None:
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    async def read(self, work: Work[T]) -> T:
        async with self._reader.connect() as tx:
            token = _in_transaction.set(True)
            try:
                return await work(tx)
            finally:
                _in_transaction.reset(token)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction and commit. Raises CommitUnknown when the commit's answer was lost."""
        task = asyncio.ensure_future(self._write(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The caller is gone, the decision is not: let it end, and let nobody miss its failure.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _write(self, work: Work[T]) -> T:
        for attempt in range(RETRIES):
            try:
                async with self._transaction() as tx:
                    token = _in_transaction.set(True)
                    try:
                        return await work(tx)
                    finally:
                        _in_transaction.reset(token)
            except sqlalchemy.exc.DBAPIError as error:
                if attempt == RETRIES - 1 or not is_deadlock(error):
                    raise
                await asyncio.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 6)))
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Tx]:
        if self.is_sqlite:
            async with self._writing, self._writer.connect() as tx:
                await tx.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    yield tx
                    await self._commit(tx)
                except BaseException:
                    await tx.rollback()
                    raise
        else:
            async with self._writer.connect() as tx:
                try:
                    yield tx
                    await self._commit(tx)
                except BaseException:
                    with contextlib.suppress(sqlalchemy.exc.DBAPIError):
                        await tx.rollback()
                    raise

    async def _commit(self, tx: Tx) -> None:
        try:
            await tx.commit()
        except sqlalchemy.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise CommitUnknown from error
            raise


def is_deadlock(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether the database undid the transaction for another's sake, so that trying again makes sense."""
    original = error.orig
    args = getattr(original, "args", ())
    if args and args[0] in _DEADLOCK_MYSQL:
        return True
    return getattr(original, "sqlstate", None) in _DEADLOCK_POSTGRESQL
