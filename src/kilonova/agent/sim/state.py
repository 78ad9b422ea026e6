"""What a simulated hypervisor holds, in a file: a real one's guests outlive the agent's process, so these do too.

It survives the process, not the machine's power: nor would running guests.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from kilonova.agent.driver import ServerSpec
from kilonova.agent.sqlite_writer import SqliteWriter

_SCHEMA = """
CREATE TABLE IF NOT EXISTS guest (
    host TEXT NOT NULL, uuid TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (host, uuid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image (
    host TEXT NOT NULL, id TEXT NOT NULL, size INTEGER NOT NULL, used REAL NOT NULL,
    PRIMARY KEY (host, id)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class SimGuest(msgspec.Struct, kw_only=True):
    """One server on one host: what exists of it, and what was ever done to it (kept when it is gone)."""

    uuid: str
    spec: ServerSpec | None = None
    disks: bool = False
    config_drive: bool = False
    defined: bool = False
    power_state: int = 0
    boot_marker: str | None = None
    console: str = ""
    effects: dict[str, int] = {}
    """How many times each verb changed something."""
    calls: dict[str, int] = {}
    """How many times each verb was called; faults count by it."""


class CachedImage(msgspec.Struct):
    size: int
    used: float


class SimState:
    """The file of all simulated hosts of a process."""

    def __init__(self, path: Path | str) -> None:
        self._writer = SqliteWriter(path, synchronous="OFF", schema=_SCHEMA)

    async def start(self) -> None:
        await self._writer.start()

    async def close(self) -> None:
        await self._writer.close()

    async def load(self, host: str) -> tuple[dict[str, SimGuest], dict[str, CachedImage]]:
        def job(db: sqlite3.Connection) -> tuple[list[tuple[bytes]], list[tuple[str, int, float]]]:
            guests = db.execute("SELECT data FROM guest WHERE host = ?", (host,)).fetchall()
            return guests, db.execute("SELECT id, size, used FROM image WHERE host = ?", (host,)).fetchall()

        rows, cached = await self._writer.run(job)
        guests = [msgspec.msgpack.decode(data, type=SimGuest) for (data,) in rows]
        return {guest.uuid: guest for guest in guests}, {i: CachedImage(size, used) for i, size, used in cached}

    async def save(self, host: str, guest: SimGuest) -> None:
        data = msgspec.msgpack.encode(guest)
        await self._writer.run(
            lambda db: db.execute("INSERT OR REPLACE INTO guest VALUES (?, ?, ?)", (host, guest.uuid, data))
        )

    async def forget(self, host: str, uuid: str) -> None:
        await self._writer.run(lambda db: db.execute("DELETE FROM guest WHERE host = ? AND uuid = ?", (host, uuid)))

    async def save_image(self, host: str, image_id: str, image: CachedImage) -> None:
        row = (host, image_id, image.size, image.used)
        await self._writer.run(lambda db: db.execute("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?)", row))

    async def forget_image(self, host: str, image_id: str) -> None:
        await self._writer.run(lambda db: db.execute("DELETE FROM image WHERE host = ? AND id = ?", (host, image_id)))
