"""Servers of other makers that tests start for themselves: private ports and directories, ended by process id."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

_LANE = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
_PORTS = range(19000, 20000)[int(_LANE) :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
"""Processes of one run have ports of their own: what one has given away another sees only when somebody listens."""
_given: deque[int] = deque(maxlen=250)
"""Given away lately: whoever asked may need a while until he listens there."""


@dataclass(frozen=True)
class Place:
    """Where a process runs, and the address at which others reach it: here, at loopback."""

    address: str = "127.0.0.1"

    def command(self, arguments: list[str]) -> list[str]:
        """The command line that runs `arguments` there, as the same process."""
        return arguments


HERE = Place()


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port
    raise RuntimeError(f"no free port in {_PORTS}")


def accepts(port: int, address: str = HERE.address) -> bool:
    """Whether something listens at `port` and says so within a second."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, port)) == 0


def spawn(
    arguments: list[str], *, log: Path, env: dict[str, str] | None = None, user: tuple[int, int] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own with its output in `log`; `user`: ids of whoever it runs as."""
    account: dict[str, Any] = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            **account,
        )


def wait_until(
    true: Callable[[], bool], process: subprocess.Popen[bytes], *, what: str, log: Path, timeout: float = 90.0
) -> None:
    """Wait until `true()`. Raises RuntimeError with the log's end when it ends before, or after `timeout` s."""
    end = time.monotonic() + timeout
    while not true():
        if process.poll() is not None or time.monotonic() > end:
            state = "is not ready" if process.poll() is None else f"ended with {process.returncode}"
            raise RuntimeError(f"{what} {state}:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes], *, how: int = signal.SIGTERM, timeout: float = 30.0) -> None:
    """End a process and what it started in its session."""
    for number in (how, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout)
            break
        except subprocess.TimeoutExpired:
            continue
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Server(Protocol):
    """A database server in a directory of its own."""

    def install(self) -> None: ...

    def start(self) -> None: ...

    def grant(self) -> None: ...

    def close(self) -> None: ...


_S = TypeVar("_S", bound=Server)


@contextlib.contextmanager
def serving(make: Callable[[Path], _S], prefix: str) -> Iterator[_S]:
    """What `make` makes in a new directory, running; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    server = make(directory)
    try:
        server.install()
        server.start()
        server.grant()
        yield server
    finally:
        server.close()
        shutil.rmtree(directory, ignore_errors=True)
