"""Which process is ours: a pid alone is reused, a pid with its start time is not."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kilonova.allinone.files import write_private

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where daemons are, whatever the user's PATH says."""


class ProcessId(msgspec.Struct, frozen=True, kw_only=True):
    """One process for all time: `started` is in clock ticks after boot (proc(5), field 22), `boot` names that boot."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    started: int


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The command stands in parentheses and may itself hold parentheses and spaces.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(state=fields[0], parent=int(fields[1]), started=int(fields[19]))


def identify(pid: int) -> ProcessId | None:
    """The lasting identity of a running process; None when there is none with that pid (or only its zombie)."""
    stat = _stat(pid)
    if stat is None or stat.state in "ZX":
        return None
    return ProcessId(pid=pid, started=stat.started, boot=boot_id())


def is_running(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def command_line(pid: int) -> str:
    """The command of a process for a message to the user; empty when it cannot be read."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def remember(path: Path, process: ProcessId) -> None:
    """Store a process's identity so that a later `kilonova` finds it again."""
    write_private(path, msgspec.json.encode(process))


def recall(path: Path) -> ProcessId | None:
    """The process stored at `path` when it still runs; else None."""
    try:
        process = msgspec.json.decode(path.read_bytes(), type=ProcessId)
    except (FileNotFoundError, msgspec.DecodeError):
        # A half-written record names nobody; whoever wrote it died before it started anything lasting.
        return None
    return process if is_running(process) else None


def spawn_detached(command: list[str], log: Path, environment: dict[str, str]) -> int:
    """Start a process that outlives us (a session of its own, output appended to `log`); its pid.

    It gets none of our open files: a lock or a pipe of whoever started us would be held for as long as it lives.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawnp(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()),
        ],
        setsid=True,
    )


def _inheritable() -> list[int]:
    """File descriptors from 3 on that a program started by us would have too."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the one that read this list
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def end(process: ProcessId, *, grace: float) -> None:
    """SIGTERM, then SIGKILL after `grace` seconds. Returns when the process is gone."""
    for sig, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        if not is_running(process):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, sig)
        deadline = time.monotonic() + wait
        while is_running(process) and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
            time.sleep(0.02)
