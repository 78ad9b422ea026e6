#!/usr/bin/python3
"""A small stand-in for systemctl on machines without systemd: executes unit files as they stand.

    systemctl enable|start|stop|restart|reload|is-active UNIT...

`enable` is the real systemctl's. `start` honours User, Group, ExecStart, Type=notify, TimeoutStartSec and the
directories that a unit asks for, InaccessiblePaths; `stop` honours KillMode and TimeoutStopSec. What else sandboxes a
service is left out.
Standard library alone: it runs inside of the machines.
"""

from __future__ import annotations

import configparser
import grp
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

UNITS = Path("/lib/systemd/system")
RUN = Path("/run/units")
DIRECTORIES = {"StateDirectory": "/var/lib", "LogsDirectory": "/var/log", "RuntimeDirectory": "/run"}

HIDE = 'while [ "$1" != -- ]; do mount -t tmpfs -o ro,mode=0 none "$1" || exit; shift; done; shift; exec "$@"'
"""Run what comes after `--` with something empty over the paths before it."""


class Unit:
    def __init__(self, name: str) -> None:
        self.name = name if name.endswith(".service") else f"{name}.service"
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
        if not parser.read(UNITS / self.name):
            sys.exit(f"Failed to start {self.name}: Unit {self.name} not found.")
        self.service = parser["Service"]
        self.pid_file = RUN / self.name

    def pid(self) -> int | None:
        """Of its main process while it runs."""
        try:
            pid = int(self.pid_file.read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else pid

    def start(self) -> None:
        if self.pid():
            return
        user = self.service.get("User", "root")
        account = pwd.getpwnam(user)
        group = grp.getgrnam(self.service.get("Group", grp.getgrgid(account.pw_gid).gr_name)).gr_gid
        for option, above in DIRECTORIES.items():
            for each in self.service.get(option, "").split():
                directory = Path(above, each)
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
                os.chown(directory, account.pw_uid, group)
        RUN.mkdir(exist_ok=True)
        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"\0notify-{self.name}-{time.monotonic_ns()}"
        notified.bind(address)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": account.pw_dir}
        environment["NOTIFY_SOCKET"] = "@" + address[1:]
        for file in self.service.get("EnvironmentFile", "").split():
            with suppress(FileNotFoundError):
                for line in Path(file.removeprefix("-")).read_text().splitlines():
                    name, equals, value = line.partition("=")
                    if equals and not name.startswith("#"):
                        environment[name.strip()] = value.strip().strip("\"'")
        with open(f"/var/log/{self.name}.log", "ab") as log:
            command = [part for word in shlex.split(self.service["ExecStart"]) for part in _expanded(word, environment)]
            process = subprocess.Popen(
                [*self._confined(user, account.pw_uid, group), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=int(self.service.get("UMask", "0022"), 8),
                cwd="/",
            )
        self.pid_file.write_text(str(process.pid))
        if self.service.get("Type", "simple") != "notify":
            return
        limit = float(self.service.get("TimeoutStartSec", "90"))
        notified.settimeout(0.2)
        end = time.monotonic() + limit
        while time.monotonic() < end:
            with suppress(TimeoutError):
                if b"READY=1" in notified.recv(4096).split(b"\n"):
                    return
            if process.poll() is not None:
                break
        self.stop()
        last = Path(f"/var/log/{self.name}.log").read_text(errors="replace").splitlines()[-15:]
        sys.exit(f"Job for {self.name} failed: it did not become ready.\n" + "\n".join(last))

    def _confined(self, user: str, uid: int, gid: int) -> list[str]:
        """What comes before a command that runs as the user, without the paths that it may not reach."""
        prefix = []
        paths = [path.removeprefix("-") for path in self.service.get("InaccessiblePaths", "").split()]
        if paths:
            hide = (
                'while [ "$1" != -- ]; do mount -t tmpfs -o ro,mode=0 none "$1" || exit; shift; done; shift; exec "$@"'
            )
            prefix = ["unshare", "--mount", "--propagation=private", "sh", "-c", hide, "sh", *paths, "--"]
        if user != "root":
            prefix += ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"]
        return prefix

    def stop(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        reach = os.kill if self.service.get("KillMode") == "process" else os.killpg
        reach(pid, signal.SIGTERM)
        end = time.monotonic() + float(self.service.get("TimeoutStopSec", "90"))
        while self.pid() and time.monotonic() < end:
            time.sleep(0.05)
        if self.pid():
            reach(pid, signal.SIGKILL)
        self.pid_file.unlink(missing_ok=True)

    def reload(self) -> None:
        pid = self.pid()
        if pid is None:
            sys.exit(f"{self.name} is not active, cannot reload.")
        os.kill(pid, signal.SIGHUP)


def _expanded(word: str, environment: dict[str, str]) -> list[str]:
    """`$NAME` alone stands for any number of words."""
    return environment.get(word[1:], "").split() if word.startswith("$") else [word]


def main(verb: str, names: list[str]) -> None:
    if verb == "enable":
        done = subprocess.run(["/usr/bin/systemctl", "--root=/", "enable", *names], check=False)
        sys.exit(done.returncode)
    units = [Unit(name) for name in names]
    if verb == "is-active":
        states = ["active" if unit.pid() else "inactive" for unit in units]
        print("\n".join(states))
        sys.exit(0 if "active" in states else 3)
    for unit in units:
        if verb in ("stop", "restart"):
            unit.stop()
        if verb in ("start", "restart"):
            unit.start()
        if verb == "reload":
            unit.reload()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
