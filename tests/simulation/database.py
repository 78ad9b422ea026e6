"""The database: SQLite in memory, whose transactions are as apart from each other as MariaDB's.

What a transaction reads before it first locks or writes something, others may change meanwhile (READ COMMITTED);
from then on to its COMMIT it is alone. A process that dies before that moment has changed nothing, one that dies
after it has committed. The connection may be lost before, or while COMMIT is under way; and a transaction may be
a deadlock's victim, and have to begin anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import sqlalchemy as sa
import sqlalchemy.exc

from kilonova.db import sqlite
from kilonova.db.engine import CommitUnknown, Database, _decode_json, _encode_json, _inside
from kilonova.db.tables import metadata
from tests.simulation.loop import Node
from tests.simulation.weather import Weather

T = TypeVar("T")

EPOCH_JULIAN = 2440587.5
START = 1_893_456_000.0
"""2030-01-01, when every run begins."""


class Store:
    """The rows, for one run after another: what a run writes is undone at its end."""

    def __init__(self) -> None:
        options = {"json_serializer": _encode_json, "json_deserializer": _decode_json}
        self.clock: Callable[[], float] = lambda: START
        self._file = sqlite.File(":memory:", ("foreign_keys=ON",), options, lambda statement: None)
        self._file.on_connect = lambda raw: raw.create_function(
            "julianday", 1, lambda _: self.clock() / 86400.0 + EPOCH_JULIAN
        )
        general = self._file.engine.connect()
        metadata.create_all(general)
        self.connection = sqlite.Connection(self._file, general, None, budgeted=False)  # type: ignore[arg-type]
        raw = general.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        self.raw = raw
        self.writing = False
        self.commits = 0
        self.check: Callable[[str], None] = lambda work: None
        """Called after every commit, with what it was for."""

    def begin_run(self) -> None:
        self.raw.execute("BEGIN")
        self.commits = 0

    def end_run(self) -> None:
        self.check = lambda work: None
        self.raw.execute("ROLLBACK")
        self.writing = False

    def begin(self) -> None:
        assert not self.writing, "a transaction waits for something else than the database"
        self.writing = True
        self.raw.execute("SAVEPOINT one")

    def commit(self, work: str) -> None:
        if self.writing:
            self.writing = False
            self.raw.execute("RELEASE one")
            self.commits += 1
            self.check(work)

    def rollback(self) -> None:
        if self.writing:
            self.writing = False
            self.raw.execute("ROLLBACK TO one")
            self.raw.execute("RELEASE one")


class _Tx:
    """What transactions get as `tx`."""

    def __init__(self, store: Store, weather: Weather, *, writes: bool) -> None:
        self._store = store
        self._weather = weather
        self._writes = writes
        self._alone = False
        self._asked = False

    @property
    def dialect(self) -> sa.Dialect:
        return self._store.connection.dialect

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        plain = isinstance(statement, sa.Select | sa.CompoundSelect) and getattr(
            statement, "_for_update_arg", None
        ) is None  # fmt: skip
        if not self._alone:
            if plain or not self._writes:
                if self._asked:
                    await self._weather.pass_by()
                self._asked = True
            else:
                self._alone = True
                self._store.begin()
        return await self._store.connection.execute(statement, parameters)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    async def scalars(self, statement: Any, parameters: Any = None) -> Any:
        return (await self.execute(statement, parameters)).scalars()


class SimDatabase(Database):
    """As one process sees it."""

    def __init__(self, node: Node, store: Store, weather: Weather) -> None:
        self._node = node
        self._store = store
        self._weather = weather
        self.is_sqlite = True
        self.statements = 0

    async def close(self) -> None:
        return

    async def read(self, work: Callable[[Any], Awaitable[T]]) -> T:
        weather = self._weather
        await weather.pass_by()
        if weather.happens(weather.database_away):
            self._lost("read")
        result = await _inside(work, _Tx(self._store, weather, writes=False))
        await weather.pass_by()
        return result

    async def write(self, work: Callable[[Any], Awaitable[T]]) -> T:
        task = asyncio.get_running_loop().create_task(self._write(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _write(self, work: Callable[[Any], Awaitable[T]]) -> T:
        weather, store = self._weather, self._store
        await weather.pass_by()
        if weather.happens(weather.slow_commit):
            await asyncio.sleep(40.0 * weather.chance.random() ** 2)
        if weather.happens(weather.database_away):
            self._lost("write")
        while True:
            try:
                result = await _inside(work, _Tx(store, weather, writes=True))
            except BaseException:
                store.rollback()
                raise
            if store.writing and weather.happens(weather.deadlock):
                store.rollback()
                weather.trace.fault(self._node, "deadlock", _name(work))
                await weather.pass_by()
                continue
            break
        if store.writing:
            weather.trace.did(self._node, f"commits {_name(work)}")
            if weather.happens(weather.commit_unknown):
                await self._commit_unknown(_name(work))
            store.commit(_name(work))
        await weather.pass_by()
        if weather.happens(weather.slow_commit):
            await asyncio.sleep(40.0 * weather.chance.random() ** 2)
        return result

    async def _commit_unknown(self, work: str) -> None:
        weather = self._weather
        happened = weather.chance.random() < 0.5
        self._store.commit(work) if happened else self._store.rollback()
        weather.trace.fault(self._node, "commit unknown", "it happened" if happened else "it did not happen")
        await weather.pass_by()
        raise CommitUnknown

    def _lost(self, what: str) -> None:
        self._weather.trace.fault(self._node, "database away", what)
        raise sqlalchemy.exc.OperationalError(what, None, sqlite3.OperationalError("the connection was lost"))


def _name(work: Callable[..., Any]) -> str:
    return getattr(work, "__qualname__", "?").replace(".<locals>", "").removesuffix(".work")
