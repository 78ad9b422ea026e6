"""What an agent has been told to do, what came of it, and which orders are too old.

A command is stored before it is acknowledged and its result before it is sent,
so that neither a lost message nor the process's death loses or doubles work.
One file may serve many (simulated) hosts.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kilonova.agent.sqlite_writer import SqliteWriter
from kilonova.bus.messages import Command, Result
from kilonova.errors import Conflict, Invalid

_SCHEMA = """
CREATE TABLE IF NOT EXISTS command (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, key TEXT NOT NULL, server TEXT NOT NULL, operation INTEGER NOT NULL,
    payload BLOB, had_secrets INTEGER NOT NULL, reply_to TEXT NOT NULL, result BLOB, ended REAL, UNIQUE (host, key));
CREATE INDEX IF NOT EXISTS command_open ON command (host) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS command_ended ON command (ended) WHERE ended IS NOT NULL;
CREATE TABLE IF NOT EXISTS newest (
    host TEXT NOT NULL, server TEXT NOT NULL, operation INTEGER NOT NULL, attempt INTEGER NOT NULL,
    undo INTEGER NOT NULL, mark TEXT, seen REAL NOT NULL, PRIMARY KEY (host, server)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""

_PRUNE = 600.0
"""Seconds between two prunings."""

_encode = msgspec.msgpack.encode


class State(enum.Enum):
    NEW = "new"
    """Stored just now: run it."""
    RUNNING = "running"
    """Known and not ended."""
    DONE = "done"
    """Known and ended: `result` is what came of it."""
    OLD = "old"
    """Something newer was seen: refuse."""
    FOREIGN = "foreign"
    """Another server's command has this key: its result is not this one's."""


class Recorded(msgspec.Struct, frozen=True):
    state: State
    result: Result | None = None


class Unfinished(msgspec.Struct, frozen=True):
    """A command without a result, found at start. Its secrets were never stored."""

    command: Command
    had_secrets: bool


class Key(msgspec.Struct, frozen=True):
    """A command's key, taken apart: '<operation>/<step>/<do|undo>/<attempt>[.<try>]'."""

    operation: int
    step: str
    undo: bool
    attempt: int

    @classmethod
    def parse(cls, text: str) -> Key:
        """Raises Invalid when the text is not a key."""
        match = _KEY.fullmatch(text)
        if match is None:
            raise Invalid(f"'{text}' is no command key; expected '<operation>/<step>/<do|undo>/<attempt>[.<try>]'.")
        return cls(int(match[1]), match[2], match[3] == "undo", int(match[4]))

    @property
    def rank(self) -> tuple[int, int, int]:
        """Order among a server's commands: by operation, by attempt, the undoing of an attempt after its doing.

        Tries do not count: a conductor that takes an operation over counts them
        anew, and doing twice what is to be done harms nothing.
        """
        return self.operation, self.attempt, int(self.undo)


_KEY = re.compile(r"(\d+)/([^/]+)/(do|undo)/(\d+)(?:\.\d+)?")


class Journal:
    """See the module."""

    def __init__(
        self,
        path: Path | str,
        *,
        synchronous: str = "FULL",
        keep_results: float = 86_400.0,
        keep_tombstones: float = 7 * 86_400.0,
    ) -> None:
        """`synchronous` is SQLite's; anything below FULL may lose commands with the machine's power.

        Results and tombstones are kept for that many seconds: far longer than a message can be late.
        """
        self._keep_results = keep_results
        self._keep_tombstones = keep_tombstones
        self._pruned: float | None = None
        self._writer = SqliteWriter(path, synchronous=synchronous, schema=_SCHEMA)

    async def start(self) -> None:
        await self._writer.start()

    async def close(self) -> None:
        await self._writer.close()

    @property
    def commits(self) -> int:
        return self._writer.commits

    async def record(self, host: str, command: Command, now: float) -> Recorded:
        """Store a command that is not known yet; durable on return. `now` in seconds since the epoch.

        Raises Invalid for a malformed key.
        """
        key = Key.parse(command.key)
        await self._prune_sometimes(now)
        payload = _encode(msgspec.structs.replace(command, secrets=None))

        def job(db: sqlite3.Connection) -> Recorded:
            row = db.execute(
                "SELECT id, reply_to, result, server FROM command WHERE host = ? AND key = ?", (host, command.key)
            ).fetchone()
            if row is not None:
                if row[3] != command.server_uuid:
                    return Recorded(State.FOREIGN)
                if row[2] is not None:
                    return Recorded(State.DONE, msgspec.msgpack.decode(row[2], type=Result))
                if _newest(db, host, command.server_uuid) > key.rank:
                    # Nobody asked for it any more, newer work came, and here is a late copy.
                    return Recorded(State.OLD)
                if row[1] != command.reply_to:
                    db.execute("UPDATE command SET reply_to = ? WHERE id = ?", (command.reply_to, row[0]))
                return Recorded(State.RUNNING)
            if not _advance(db, host, command.server_uuid, key, now):
                return Recorded(State.OLD)
            db.execute(
                "INSERT INTO command (host, key, server, operation, payload, had_secrets, reply_to)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    host,
                    command.key,
                    command.server_uuid,
                    command.operation_id,
                    payload,
                    int(command.secrets is not None),
                    command.reply_to,
                ),
            )
            return Recorded(State.NEW)

        return await self._writer.run(job)

    async def finish(self, host: str, result: Result, now: float) -> None:
        """Store a result and erase the command's payload. A second result for a key changes nothing."""
        stored = _encode(result)
        await self._writer.run(
            lambda db: db.execute(
                "UPDATE command SET result = ?, ended = ?, payload = NULL WHERE host = ? AND key = ? AND ended IS NULL",
                (stored, now, host, result.key),
            )
        )

    async def unfinished(self, host: str) -> list[Unfinished]:
        """Commands without a result in the order in which they came, with their newest `reply_to`."""

        def job(db: sqlite3.Connection) -> list[tuple[bytes, int, str]]:
            return db.execute(
                "SELECT payload, had_secrets, reply_to FROM command WHERE host = ? AND ended IS NULL ORDER BY id",
                (host,),
            ).fetchall()

        found = []
        for payload, had_secrets, reply_to in await self._writer.run(job):
            command = msgspec.msgpack.decode(payload, type=Command)
            found.append(Unfinished(msgspec.structs.replace(command, reply_to=reply_to), bool(had_secrets)))
        return found

    async def mark(self, host: str, server_uuid: str, mark: str) -> None:
        """Remember with a server that a point of no repetition was passed, e.g. a rebuild's wipe."""
        await self._writer.run(
            lambda db: db.execute("UPDATE newest SET mark = ? WHERE host = ? AND server = ?", (mark, host, server_uuid))
        )

    async def marked(self, host: str, server_uuid: str) -> str | None:
        """The newest mark of a server."""
        row = await self._writer.run(
            lambda db: db.execute(
                "SELECT mark FROM newest WHERE host = ? AND server = ?", (host, server_uuid)
            ).fetchone()
        )
        return None if row is None else row[0]

    async def _prune_sometimes(self, now: float) -> None:
        first, self._pruned = self._pruned is None, now if self._pruned is None else self._pruned
        if not first and now - self._pruned >= min(_PRUNE, self._keep_results):
            self._pruned = now
            await self.prune(now - self._keep_results, now - self._keep_tombstones)

    async def prune(self, ended_before: float, seen_before: float) -> int:
        """Drop results and tombstones older than these times (seconds since the epoch); the number of results dropped.

        A tombstone stays while its server has an unfinished command; one that later operations have long left behind,
        as nobody asked for it again, goes too.
        """

        def job(db: sqlite3.Connection) -> int:
            dropped = db.execute("DELETE FROM command WHERE ended < ?", (ended_before,)).rowcount
            db.execute(
                "DELETE FROM command WHERE ended IS NULL AND EXISTS (SELECT 1 FROM newest n WHERE n.host = command.host"
                " AND n.server = command.server AND n.operation > command.operation AND n.seen < ?)",
                (ended_before,),
            )
            db.execute(
                "DELETE FROM newest WHERE seen < ? AND NOT EXISTS (SELECT 1 FROM command c"
                " WHERE c.host = newest.host AND c.server = newest.server AND c.ended IS NULL)",
                (seen_before,),
            )
            return dropped

        return await self._writer.run(job)


def _advance(db: sqlite3.Connection, host: str, server: str, key: Key, now: float) -> bool:
    """Note the key as its server's newest. False when something newer was seen already."""
    if key.rank < _newest(db, host, server):
        return False
    db.execute(
        "INSERT INTO newest (host, server, operation, attempt, undo, seen) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (host, server) DO UPDATE SET"
        " operation = excluded.operation, attempt = excluded.attempt, undo = excluded.undo, seen = excluded.seen",
        (host, server, *key.rank, now),
    )
    return True


def _newest(db: sqlite3.Connection, host: str, server: str) -> tuple[int, int, int]:
    """The rank of the newest command that was seen of this server."""
    row = db.execute(
        "SELECT operation, attempt, undo FROM newest WHERE host = ? AND server = ?", (host, server)
    ).fetchone()
    return row or (-1, -1, -1)


@contextlib.contextmanager
def host_lock(directory: Path, host: str, what: str = "agent") -> Iterator[None]:
    """One agent (or `what` it is) per host and state directory. Raises Conflict when another process has the lock."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{what}-{host}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Conflict(f"Another {what} for host '{host}' runs on {directory} (process {holder}).") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
