"""A program that serves in a namespace and outlives us (dnsmasq, radvd): started, found again, told, ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from kilonova import netns
from kilonova.allinone import processes
from kilonova.allinone.files import write_private
from kilonova.errors import HostFailure
from kilonova.network.plane import events

_ENVIRONMENT = {"PATH": processes.SYSTEM_PATH, "LC_ALL": "C.UTF-8"}


class Daemon:
    """`directory` holds its files, its log and the record by which it is found again."""

    def __init__(self, directory: Path, space: str) -> None:
        self.directory = directory
        self._space = space
        self._record = directory / "process.json"
        self._identity = directory / "started-as"

    def ensure(self, command: Sequence[str], fixed: Mapping[str, str], told: Mapping[str, str]) -> bool:
        """It runs with these files. Whether anything had to be done. Raises HostFailure.

        `fixed`: files, by name, that it reads at its start only; `told`: those that it reads again upon SIGHUP.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        news = [name for name, text in {**fixed, **told}.items() if _read(self.directory / name) != text]
        for name in news:
            write_private(self.directory / name, {**fixed, **told}[name])
        identity = hashlib.sha256(
            repr((list(command), sorted(fixed.items()), events.inode(self._space))).encode()
        ).hexdigest()
        process = processes.recall(self._record)
        if process is not None and _read(self._identity) != identity:
            processes.end(process, grace=3.0)
            process = None
        if process is not None:
            if any(name in told for name in news):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)
            return bool(news)
        write_private(self._identity, identity)
        pid = processes.spawn_detached(
            ["nsenter", f"--net={netns.path_of(self._space)}", *command], self.directory / "log", _ENVIRONMENT
        )
        found = processes.identify(pid)
        if found is None:
            raise HostFailure(f"{command[0]} ended as soon as it started; its log is {self.directory / 'log'}.")
        processes.remember(self._record, found)
        return True

    def pid(self) -> int | None:
        """Its process, when it runs."""
        process = processes.recall(self._record)
        return process.pid if process is not None else None

    def end(self) -> None:
        process = processes.recall(self._record)
        if process is not None:
            processes.end(process, grace=3.0)
        self._record.unlink(missing_ok=True)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
