"""Network namespaces with names (as `ip netns` has them), and doing something inside of one.

Linux ties a namespace to a thread, so whatever is done inside runs in a thread of its own that ends with it. A socket
made there stays in the namespace and may be used from anywhere.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from kilonova.errors import HostFailure

T = TypeVar("T")

DIRECTORY = Path("/run/netns")
"""Where a namespace's name is, bound to the namespace itself."""

_CLONE_NEWNET = 0x40000000


def path_of(name: str) -> Path:
    return DIRECTORY / name


def exists(name: str) -> bool:
    # A name that nothing is mounted on is what a half-done `ip netns add` leaves behind.
    return os.path.ismount(path_of(name))


def names(prefix: str) -> list[str]:
    """Those that there are, sorted."""
    return sorted(path.name for path in DIRECTORY.glob(f"{prefix}*") if os.path.ismount(path))


def ensure(name: str, *, of_process: int | None = None) -> bool:
    """The namespace is there, with its loopback up. Whether it had to be made. Raises HostFailure.

    `of_process`: one that lives in it, should only the name have been lost.
    """
    if exists(name):
        return False
    path_of(name).unlink(missing_ok=True)
    if of_process is not None:
        _ip("netns", "attach", name, str(of_process))
    else:
        _ip("netns", "add", name)
    _ip("-n", name, "link", "set", "lo", "up")
    return True


def name_ours(name: str) -> None:
    """The namespace that this process lives in has the name. Raises HostFailure when another one has it."""
    if not exists(name):
        path_of(name).unlink(missing_ok=True)
        _ip("netns", "attach", name, str(os.getpid()))
    elif not os.path.samefile(path_of(name), "/proc/self/ns/net"):
        raise HostFailure(f"The network namespace {name} is another one than ours: 'ip netns delete {name}' first.")


def remove(name: str) -> None:
    """The name is gone; the namespace goes with the last process in it. Raises HostFailure."""
    if path_of(name).exists():
        _ip("netns", "delete", name)


def settle(name: str, settings: Iterable[str]) -> None:
    """The namespace has these kernel settings (`net.ipv4.ip_forward=1`). Blocks for well under a millisecond.

    Raises OSError when there is no such namespace or setting.
    """

    def compare() -> None:
        for setting in settings:
            key, _, value = setting.partition("=")
            # In /proc/sys the reader's own namespace is shown.
            path = Path("/proc/sys", *key.split("."))
            if path.read_text().strip() != value:
                path.write_text(value)

    in_namespace(path_of(name), compare)


def in_namespace(netns: Path | None, work: Callable[[], T]) -> T:
    """Run in a thread of its own within the namespace of that file; the calling thread stays where it is.

    With None: here. Blocks. Raises what `work` raises, and OSError when there is no such namespace.
    """
    if netns is None:
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def inside() -> None:
        try:
            with open(netns, "rb") as file:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(file.fileno(), _CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, f"namespace {netns}: {os.strerror(code)}")
            results.append(work())
        except BaseException as error:
            errors.append(error)

    # Never a pool's thread: it would stay in the namespace.
    thread = threading.Thread(target=inside, name="netns", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def open_socket(netns: Path | None, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
    """A socket whose world is the namespace's, whoever uses it."""
    return in_namespace(netns, lambda: socket.socket(family, kind, protocol))


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise HostFailure(f"ip {' '.join(words)}: {done.stderr.strip()}")
