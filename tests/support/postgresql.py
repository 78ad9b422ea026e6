"""A PostgreSQL of the tests' own, in a temporary directory on a private port."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.certificates import write_certificates
from tests.support.processes import end, free_port, serving, spawn, wait_until

_PROGRAMS = Path("/usr/lib/postgresql/15/bin")


def _account() -> str:
    """PostgreSQL refuses to run as root: then it is the package's user."""
    return "postgres" if os.getuid() == 0 else getpass.getuser()


class PostgreSQL:
    """One server with the user kilonova, who owns its databases. `fsync=False` trades durability for speed.

    With `tls` nobody gets in over the network without.
    """

    user = "kilonova"
    password = "data@base"

    def __init__(self, directory: Path, *, fsync: bool = False, tls: bool = False) -> None:
        self.directory = directory
        self.port = free_port()
        self._tls = tls
        self._account = _account()
        self._fsync = fsync
        self._log = directory / "postgresql.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def _as_account(self, *command: str) -> list[str]:
        if self._account == getpass.getuser():
            return list(command)
        return ["/usr/sbin/runuser", "-u", self._account, "--", *command]

    def install(self) -> None:
        """Make the data directory."""
        account = pwd.getpwnam(self._account)
        os.chown(self.directory, account.pw_uid, account.pw_gid)
        subprocess.run(
            self._as_account(
                str(_PROGRAMS / "initdb"),
                f"--pgdata={self.directory}/data",
                "--username=root",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ),
            check=True,
            capture_output=True,
            timeout=120,
            cwd=self.directory,
        )
        if self._tls:
            write_certificates(self.directory)
            key = self.directory / "server.key"
            key.chmod(0o600)
            os.chown(key, account.pw_uid, account.pw_gid)
            (self.directory / "data/pg_hba.conf").write_text(
                "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
            )

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "fsync": "on" if self._fsync else "off",
            "max_connections": 300,
            "shared_buffers": "64MB",
            "log_min_messages": "fatal",
        }
        if self._tls:
            settings |= {
                "ssl": "on",
                "ssl_cert_file": self.directory / "server.pem",
                "ssl_key_file": self.directory / "server.key",
            }
        command = [str(_PROGRAMS / "postgres"), "-D", f"{self.directory}/data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        account = pwd.getpwnam(self._account)
        self._server = spawn(
            command, log=self._log, user=None if account.pw_uid == os.getuid() else (account.pw_uid, account.pw_gid)
        )
        wait_until(self._ready, self._server, what="PostgreSQL", log=self._log)

    def _ready(self) -> bool:
        arguments = [str(_PROGRAMS / "pg_isready"), "-q", "-h", str(self.directory), "-p", str(self.port)]
        return subprocess.run(arguments, timeout=30).returncode == 0

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._server is None:
            return
        # Each of its processes leads a group of its own, and the next server waits for the last of them.
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._server.pid).children(recursive=True)
        end(self._server, how=signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)
        self._server = None

    def close(self) -> None:
        """End it in order, whoever is connected."""
        if self._server is not None:
            end(self._server, how=signal.SIGINT)
            self._server = None

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run statements as the superuser over the socket; rows as lines, with tabs between columns."""
        arguments = [
            str(_PROGRAMS / "psql"), "-X", "-q", "-At", "-F", "\t", "-v", "ON_ERROR_STOP=1",
            "-h", str(self.directory), "-p", str(self.port), "-U", "root", "-d", database, "-c", sql,
        ]  # fmt: skip
        return subprocess.run(arguments, check=True, capture_output=True, timeout=60, text=True).stdout

    def grant(self) -> None:
        self.execute(f"CREATE ROLE {self.user} LOGIN PASSWORD '{self.password}'")

    def new_database(self) -> str:
        """Make an empty database; its URL as a configuration file states it."""
        name = f"kilonova_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {self.user}")
        return f"postgresql://{self.user}:data%40base@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running server for the whole session; take a database of your own with `new_database()`."""
    if not _PROGRAMS.exists():
        pytest.fail("PostgreSQL is not installed: apt-get install --no-install-recommends postgresql-15")
    with serving(PostgreSQL, "kn-postgresql-") as server:
        yield server
