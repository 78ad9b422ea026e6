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
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.db import sqlite, tls, vanished
from kilonova.transactions import in_transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    Tx = AsyncConnection
else:
    # SQLite's transactions only behave like one; without the import a process is 8 MiB smaller.
    Tx = Any

T = TypeVar("T")
Work = Callable[[Tx], Awaitable[T]]

RETRIES = 12
AWAY = 6.0
"""Seconds for which a database that restarts is waited for."""
VANISHED = 30
"""Seconds after which a machine that is not heard of is gone: as long as an operation's lease."""
_CUT_MYSQL = {1053, 1927, 2002, 2003, 2006, 2013, 2014}
_CUT_POSTGRESQL = {"57P01", "57P02", "57P03"}
_ALONE_MYSQL = {1047, 1180}
"""Of Galera: the node has no quorum (any more), and what was to be committed may have been."""
_FULL_MYSQL = {1021, 1026, 1114}
_FULL_POSTGRESQL = {"53100"}
_DEADLOCK_MYSQL = {1205, 1213}
_DEADLOCK_POSTGRESQL = {"40001", "40P01"}


class CommitUnknown(Exception):
    """The connection was lost while COMMIT was under way: it may have happened or not."""


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


async def _inside(work: Work[T], tx: Tx) -> T:
    token = in_transaction.set(True)
    try:
        return await work(tx)
    finally:
        in_transaction.reset(token)


def _half(connections: int) -> int:
    """Of those allowed, for each of two pools; what is no limit (0 kept, -1 beyond) stays none."""
    return max(1, (connections + 1) // 2) if connections > 0 else connections


def _leave_nodes_that_are_alone(engine: AsyncEngine) -> None:
    """The next connection is to go to whichever node the balancer has by then."""

    @sa.event.listens_for(engine.sync_engine, "handle_error")
    def told(context: Any) -> None:
        args = getattr(context.original_exception, "args", ())
        if args and args[0] in _ALONE_MYSQL:
            context.is_disconnect = True


class Database:
    """One database, its pools, and a count of the statements sent (`statements`)."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        max_overflow: int = 10,
        recycle: int = 600,
        synchronous: str = "FULL",
        gone: int = VANISHED,
    ) -> None:
        """Connections kept, and beyond for a while; seconds after which one is replaced. `synchronous`: SQLite's.

        `gone`: seconds after which one whose other side has vanished is lost, for us and for the database.
        """
        self.url = async_url(url)
        self.statements = 0
        self.on_statement: Callable[[str], None] | None = None
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"json_serializer": _encode_json, "json_deserializer": _decode_json}
        if self.is_sqlite:
            path = self.url.database or ":memory:"
            common = ("journal_mode=WAL", "secure_delete=ON", "foreign_keys=ON", "cache_size=-16000")
            self._files = [
                sqlite.File(path, (*common, pragma), options, self._on_statement)
                for pragma in (f"synchronous={synchronous}", "query_only=1")
            ]
            self._writer = sqlite.Writer(self._files[0])
            self._readers = sqlite.Readers(self._files[1], 4)
        else:
            from sqlalchemy.ext.asyncio.engine import create_async_engine

            self.url, context = tls.split(self.url)
            secured: dict[str, Any] = {} if context is None else {"ssl": context}

            def engine(isolation_level: str, session: dict[str, Any], **more: Any) -> AsyncEngine:
                made = create_async_engine(
                    self.url,
                    pool_size=_half(pool_size),
                    max_overflow=_half(max_overflow),
                    pool_recycle=recycle,
                    pool_pre_ping=False,
                    # Whoever takes a connection ends its transaction: another ROLLBACK would be one more way there.
                    pool_reset_on_return=None,
                    isolation_level=isolation_level,
                    connect_args=secured | session,
                    **options,
                    **more,
                )
                self._count(made)
                vanished.watch(made, gone)
                _leave_nodes_that_are_alone(made)
                return made

            self._engine = engine("READ COMMITTED", vanished.session(self.url.get_backend_name(), gone))
            # Under READ COMMITTED each statement sees what is committed by then; without a transaction it does so too,
            # and needs no ROLLBACK after it.
            self._reading = engine("AUTOCOMMIT", {}, skip_autocommit_rollback=True)

    def _count(self, engine: AsyncEngine) -> None:
        @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
        def before(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            self._on_statement(statement)

    def _on_statement(self, statement: str) -> None:
        self.statements += 1
        if self.on_statement is not None:
            self.on_statement(statement)

    def on_connect(self, told: Callable[[sqlite3.Connection], None]) -> None:
        """SQLite only: have `told` called with each connection that is opened from now on."""
        for file in self._files:
            file.on_connect = told

    async def written(self) -> None:
        """SQLite only: until no transaction is under way."""
        async with self._writer.lock:
            pass

    async def close(self) -> None:
        if self.is_sqlite:
            await self._writer.close()
            await self._readers.close()
        else:
            await self._engine.dispose()
            await self._reading.dispose()

    async def answers(self) -> bool:
        """True. Raises what keeps it from answering."""

        async def ask(tx: Tx) -> None:
            await tx.exec_driver_sql("SELECT 1")

        await self.read(ask)
        return True

    async def read(self, work: Work[T]) -> T:
        if not self.is_sqlite:
            return await self._repeated(lambda: self._read(work))
        connection = await self._readers.take()
        try:
            return await _inside(work, cast(Tx, connection))
        finally:
            self._readers.give_back(connection)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction and commit. Raises CommitUnknown when the commit's answer was lost."""
        if self.is_sqlite:
            return await self._writer.write(lambda connection: _inside(work, cast(Tx, connection)))
        task = asyncio.ensure_future(self._write(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The caller is gone, the decision is not: let it end, and let nobody miss its failure.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _read(self, work: Work[T]) -> T:
        async with self._reading.connect() as tx:
            return await _inside(work, tx)

    async def _write(self, work: Work[T]) -> T:
        async def once() -> T:
            async with self._transaction() as tx:
                return await _inside(work, tx)

        return await self._repeated(once)

    async def _repeated(self, once: Callable[[], Awaitable[T]]) -> T:
        """Again after a deadlock, and for `AWAY` seconds while the database cannot be reached."""
        until: float | None = None
        for attempt in itertools.count():
            try:
                return await _once(once)
            except sqlalchemy.exc.DBAPIError as error:
                if is_deadlock(error):
                    if attempt >= RETRIES - 1:
                        raise
                    await asyncio.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 6)))
                    continue
                now = asyncio.get_running_loop().time()
                until = until or now + AWAY
                if not is_cut(error) or now > until:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, 1.0))
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Tx]:
        async with self._engine.connect() as tx:
            try:
                yield tx
                await self._commit(tx)
            except BaseException:
                with contextlib.suppress(sqlalchemy.exc.DBAPIError, OSError):
                    await tx.rollback()
                raise

    async def _commit(self, tx: Tx) -> None:
        try:
            await tx.commit()
        except sqlalchemy.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise CommitUnknown from error
            raise
        except OSError as error:
            raise CommitUnknown from error


async def _once(once: Callable[[], Awaitable[T]]) -> T:
    try:
        return await once()
    except OSError as error:
        # asyncpg tells of a server that cannot be reached in the operating system's words, as no driver should.
        raise sqlalchemy.exc.OperationalError(None, None, error) from error


def is_away(error: BaseException) -> bool:
    """Whether the database could not be reached, so that the same will work once it is back."""
    return isinstance(
        error,
        sqlalchemy.exc.OperationalError
        | sqlalchemy.exc.InterfaceError
        | sqlalchemy.exc.TimeoutError
        | CommitUnknown
        | ConnectionError,
    ) or (isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated)


def is_cut(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether the connection was lost or could not be had: nothing of the transaction has happened."""
    original = error.orig
    if error.connection_invalidated or isinstance(original, OSError):
        return True
    args = getattr(original, "args", ())
    if args and args[0] in _CUT_MYSQL:
        return True
    state = str(getattr(original, "sqlstate", None) or "")
    return state in _CUT_POSTGRESQL or state.startswith("08")


def is_unreachable(error: BaseException) -> bool:
    """Whether whoever asked may be told to come again: the database was away for longer than it is waited for."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return is_cut(error)
    return isinstance(error, CommitUnknown | sqlalchemy.exc.TimeoutError)


def is_full(error: BaseException) -> bool:
    """Whether the database could not write: nothing of the transaction has happened."""
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    # Of a full disk SQLite also says that writing failed, where it had to make a file longer.
    name = str(getattr(original, "sqlite_errorname", None) or "")
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
        return True
    args = getattr(original, "args", ())
    if args and args[0] in _FULL_MYSQL:
        return True
    return getattr(original, "sqlstate", None) in _FULL_POSTGRESQL


def is_deadlock(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether the database undid the transaction for another's sake, so that trying again makes sense."""
    original = error.orig
    args = getattr(original, "args", ())
    if args and args[0] in _DEADLOCK_MYSQL:
        return True
    return getattr(original, "sqlstate", None) in _DEADLOCK_POSTGRESQL
