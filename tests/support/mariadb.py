"""A MariaDB of the tests' own, in a temporary directory on a private port."""

from __future__ import annotations

import getpass
import itertools
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import write_certificates
from tests.support.processes import HERE, Place, accepts, end, free_port, serving, spawn, wait_until

_SERVER = Path("/usr/sbin/mariadbd")


class MariaDB:
    """One server with the user kilonova, who may do anything. `fsync=False` trades durability for speed."""

    user = "kilonova"
    password = "data@base"

    def __init__(self, directory: Path, *, fsync: bool = False, place: Place = HERE) -> None:
        self.directory = directory
        self.place = place
        self.port = free_port()
        self.socket = directory / "s"
        self._fsync = fsync
        self._log = directory / "mariadb.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def install(self) -> None:
        """Make the data directory, and certificates for those who want TLS."""
        write_certificates(self.directory)
        subprocess.run(
            [
                "/usr/bin/mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.directory}/data",
                f"--user={getpass.getuser()}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        account = [f"--user={getpass.getuser()}"]
        self._server = spawn(self.place.command([*self._command(), *account]), log=self._log)
        wait_until(lambda: accepts(self.port, self.place.address), self._server, what="MariaDB", log=self._log)

    def _command(self) -> list[str]:
        return [
            str(_SERVER),
            "--no-defaults",
            f"--datadir={self.directory}/data",
            f"--socket={self.socket}",
            f"--pid-file={self.directory}/pid",
            f"--port={self.port}",
            f"--bind-address={self.place.address}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=64M",
            f"--innodb-flush-log-at-trx-commit={1 if self._fsync else 0}",
            "--max-connections=300",
            "--performance-schema=OFF",
            f"--ssl-ca={self.directory}/ca.pem",
            f"--ssl-cert={self.directory}/server.pem",
            f"--ssl-key={self.directory}/server.key",
        ]

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._server is not None:
            end(self._server, how=signal.SIGKILL)
            self._server = None

    def close(self) -> None:
        """End it in order."""
        if self._server is not None:
            end(self._server)
            self._server = None

    def execute(self, sql: str, database: str = "mysql") -> str:
        """Run statements as root over the socket; rows as lines, with tabs between columns."""
        arguments = ["/usr/bin/mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", "-N", "-e", sql]
        arguments.append(database)
        return subprocess.run(arguments, check=True, capture_output=True, timeout=60, text=True).stdout

    def grant(self) -> None:
        clients = HERE.address if self.place == HERE else "%"
        self.execute(f"GRANT ALL ON *.* TO '{self.user}'@'{clients}' IDENTIFIED BY '{self.password}'")

    def new_database(self) -> str:
        """Make an empty database; its URL as a configuration file states it."""
        name = f"kilonova_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return f"mysql+pymysql://{self.user}:data%40base@{self.place.address}:{self.port}/{name}"


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A running server for the whole session; take a database of your own with `new_database()`."""
    if not _SERVER.exists():
        pytest.fail("MariaDB is not installed: apt-get install --no-install-recommends mariadb-server")
    with serving(MariaDB, "kn-mariadb-") as server:
        yield server
