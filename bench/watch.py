"""A look at the cloud's database from outside, so that waiting costs the process under test nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path


class Watch:
    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(f"file:{directory}/compute.sqlite?mode=ro", uri=True, timeout=10)

    def close(self) -> None:
        self._db.close()

    def count(self, condition: str = "deleted = 0", parameters: Sequence[object] = ()) -> int:
        """Servers of which `condition` holds."""
        row = self._db.execute(f"SELECT count(*) FROM instances WHERE {condition}", parameters).fetchone()
        return int(row[0])

    def hosts(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM compute_nodes").fetchone()[0])

    def uuids(self, condition: str = "deleted = 0") -> list[str]:
        return [row[0] for row in self._db.execute(f"SELECT uuid FROM instances WHERE {condition} ORDER BY id")]

    def wait(self, condition: str, wanted: int, *, seconds: float = 180.0, pause: float = 0.005) -> float:
        """Until that many servers are in `condition`; the moment of time.perf_counter(). Raises TimeoutError."""
        until = time.monotonic() + seconds
        while True:
            found = self.count(condition)
            now = time.perf_counter()
            if found == wanted:
                return now
            if time.monotonic() > until:
                raise TimeoutError(f"{found} servers, not {wanted}, came to be {condition!r}")
            time.sleep(pause)

    def wait_one(self, uuid: str, condition: str, *, seconds: float = 60.0) -> float:
        """Until this server is in `condition`, looked at every half millisecond."""
        until = time.monotonic() + seconds
        query = f"SELECT 1 FROM instances WHERE uuid = ? AND {condition}"
        while self._db.execute(query, (uuid,)).fetchone() is None:
            if time.monotonic() > until:
                raise TimeoutError(f"server {uuid} did not come to be {condition!r}")
            time.sleep(0.0005)
        return time.perf_counter()

    def settled(self) -> None:
        """Until no server is under way. Raises TimeoutError."""
        self.wait("deleted = 0 AND operation_id IS NOT NULL", 0)
