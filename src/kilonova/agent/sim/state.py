"""What a simulated hypervisor holds, in a file: a real one's guests outlive the agent's process, so these do too.

It survives the process, not the machine's power: nor would running guests.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec

from kilonova.agent.driver import GuestEvent, ServerSpec
from kilonova.agent.sim.download import Download
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
    taps: list[str] = []
    """Ports that are plugged on the host."""
    nics: list[str] = []
    """Ports that the guest has."""
    effects: dict[str, int] = {}
    """How many times each verb changed something."""
    calls: dict[str, int] = {}
    """How many times each verb was called; faults count by it."""


class CachedImage(msgspec.Struct):
    size: int
    used: float


class SimHost:
    """What one host holds. Drivers of it come and go and share it, as agents share a hypervisor."""

    def __init__(self) -> None:
        self.guests: dict[str, SimGuest] = {}
        self.images: dict[str, CachedImage] = {}
        self.downloads: dict[str, Download] = {}
        self.watchers: list[asyncio.Queue[GuestEvent]] = []

    def left(self) -> list[str]:
        """What exists of any server: '<what> <server>'."""
        found = []
        for guest in self.guests.values():
            parts = {"guest": guest.defined, "disks": guest.disks, "config_drive": guest.config_drive}
            parts |= {"console": bool(guest.console), "taps": bool(guest.taps)}
            found += [f"{what} {guest.uuid}" for what, exists in parts.items() if exists]
        return found


class SimState:
    """The file of all simulated hosts of a process."""

    def __init__(self, path: Path | str) -> None:
        self._writer = SqliteWriter(path, synchronous="OFF", schema=_SCHEMA)
        self._hosts: dict[str, SimHost] = {}

    async def start(self) -> None:
        await self._writer.start()

    async def close(self) -> None:
        await self._writer.close()

    async def host(self, name: str) -> SimHost:
        """The host as it is now; as the file has it when nobody in this process has asked before."""
        if name not in self._hosts:
            loaded = await self._load(name)
            self._hosts.setdefault(name, loaded)
        return self._hosts[name]

    async def _load(self, name: str) -> SimHost:
        def job(db: sqlite3.Connection) -> tuple[list[tuple[bytes]], list[tuple[str, int, float]]]:
            guests = db.execute("SELECT data FROM guest WHERE host = ?", (name,)).fetchall()
            return guests, db.execute("SELECT id, size, used FROM image WHERE host = ?", (name,)).fetchall()

        guests, images = await self._writer.run(job)
        host = SimHost()
        for (data,) in guests:
            guest = msgspec.msgpack.decode(data, type=SimGuest)
            host.guests[guest.uuid] = guest
        host.images = {image_id: CachedImage(size, used) for image_id, size, used in images}
        return host

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
