"""Machines of a guide: each a root file system over this machine's own, with its own network, processes and name.

What is installed or written on one stays in its folder, so this machine is not touched. Machines of one `Lan` reach
each other by name; nothing leads out of it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_BASE = """
set -e
mount --make-rprivate /
[ -z "$MEMORY" ] || mount -t tmpfs -o mode=755 tmpfs "$MEMORY"
mkdir -p "$LAYER/upper" "$LAYER/work" "$LAYER/base"
mount -t overlay overlay -o "lowerdir=/,upperdir=$LAYER/upper,workdir=$LAYER/work" "$LAYER/base"
ip link set lo up
for bridge in lan provider; do
    ip link add $bridge type bridge mcast_snooping 0
    ip link set $bridge up
done
echo ready
exec sleep infinity
"""
_INIT = """
set -e
mount --make-rprivate /
mkdir -p "$DIR/upper" "$DIR/work" "$DIR/root"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/root"
cd "$DIR/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p run/lock run/netns run/sshd old_root
# The checkout is read and run where it stands.
pivot_root . old_root
mkdir -p "$CHECKOUT"
mount --bind "/old_root$CHECKOUT" "$CHECKOUT"
umount -l old_root
hostname "$NAME"
ip link set lo up
echo ready
while :; do sleep 3600 & wait $!; done
"""


class Machine:
    """One machine; `address` on the Lan."""

    def __init__(self, name: str, address: str, directory: Path) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self._holder: subprocess.Popen[str] | None = None
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.pid = 0
        """Of its first process, as this machine counts."""
        self.typed: list[str] = []
        """What was run on it so far and did as it should."""

    def start(self, base: Path, checkout: Path, *, beside: int) -> None:
        """Over the root file system `base`, which the process `beside` sees; the checkout stands where it does here."""
        environment = os.environ | {
            "BASE": str(base), "DIR": str(self.directory), "NAME": self.name, "CHECKOUT": str(checkout),
        }  # fmt: skip
        namespaces = ("--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
        command = ["nsenter", f"--target={beside}", "--mount", "unshare", *namespaces, "/bin/bash", "-c", _INIT]
        self._holder = _hold(command, environment)
        self.pid = _child(self._holder)

    def stop(self) -> None:
        """With every process that it has."""
        if self._holder is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        for each in self._spawned:
            each.wait(timeout=30)
        self._spawned.clear()
        _release(self._holder)
        self._holder = None

    def enter(self, *command: str, user: str | None = None) -> list[str]:
        """The command line that runs `command` in it."""
        inside = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command) if user else command
        # An environment of its own: ours would lead its programs astray.
        clean = (
            "env",
            "-i",
            f"HOME=/var/lib/{user}" if user else "HOME=/root",
            "LANG=C.UTF-8",
            "TERM=dumb",
            f"PATH={_PATH}",
        )
        return ["nsenter", f"--target={self.pid}", "--all", "--root", "--wdns=/", *clean, *inside]

    def run(
        self,
        script: str,
        *,
        user: str | None = None,
        timeout: float = 120,
        check: bool = True,
        stdin: str | None = None,
    ) -> str:
        """What a shell script prints, errors too. Raises AssertionError when it fails."""
        done = subprocess.run(
            self.enter("bash", "-c", script, user=user),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False, input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{self.name}# {script}\n{done.stdout}"
        self.typed.append(script)
        return done.stdout

    def converse(self, script: str, answers: Sequence[tuple[str, str]], *, timeout: float = 120) -> str:
        """As `run` at a terminal: each answer is typed once its prompt has come."""
        ours, theirs = os.openpty()
        talking = subprocess.Popen(
            self.enter("setsid", "--ctty", "--wait", "bash", "-c", script), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        said, waiting, end = "", list(answers), time.monotonic() + timeout
        seen = 0
        while True:
            try:
                part = os.read(ours, 4096) if select.select([ours], [], [], 1)[0] else b"\0"
            except OSError:  # nobody has the other end any more
                break
            if not part:
                break
            said += part.decode(errors="replace").replace("\0", "")
            if waiting and (found := said.find(waiting[0][0], seen)) >= 0:
                seen = found + len(waiting[0][0])
                os.write(ours, waiting.pop(0)[1].encode() + b"\n")
            assert time.monotonic() < end, said
        os.close(ours)
        assert talking.wait(timeout=30) == 0, said
        self.typed.append(script)
        return said.replace("\r", "")

    def spawn(self, script: str, log: str, *, user: str | None = None) -> None:
        """Start what goes on; `log` is a file of the machine."""
        self.run(f"mkdir -p $(dirname {log}); touch {log}; chmod 666 {log}")
        command = self.enter("bash", "-c", f"exec {script} >>{log} 2>&1", user=user)
        quiet = subprocess.DEVNULL
        self._spawned.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))

    def write(self, path: str, content: str, *, owner: str = "root", mode: str = "644") -> None:
        self.run(f"install -D -m {mode} -o {owner} -g {owner} /dev/stdin {path}", stdin=content)

    def read(self, path: str) -> str:
        return self.run(f"cat {path}")

    def until(self, script: str, patience: float = 60, otherwise: str = "") -> str:
        """Run it until it succeeds; what it printed then."""
        end = time.monotonic() + patience
        while True:
            done = subprocess.run(
                self.enter("bash", "-c", script), capture_output=True, text=True, timeout=60, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > end:
                more = self.run(otherwise, check=False) if otherwise else ""
                raise AssertionError(f"{self.name}# {script}\n{done.stdout}{done.stderr}\n{more}")
            time.sleep(0.5)


def _release(holder: subprocess.Popen[str]) -> None:
    """Wait for the end of what `_hold` started."""
    holder.wait(timeout=30)
    if holder.stdout is not None:
        holder.stdout.close()


def _hold(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start what says 'ready' and stays."""
    holder = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, stdin=subprocess.DEVNULL
    )
    assert holder.stdout is not None
    said = holder.stdout.readline().strip()
    if said != "ready":
        with holder:
            raise AssertionError(f"{said} {holder.stdout.read()}")
    return holder


def _child(holder: subprocess.Popen[Any]) -> int:
    """The first process in the namespaces that `unshare --fork` made."""
    file = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    end = time.monotonic() + 30
    while not (children := file.read_text().split()):
        assert time.monotonic() < end, "unshare started nothing"
        time.sleep(0.01)
    return int(children[0])


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Lan:
    """Two bridges in a network namespace of their own: machines hang at `lan` by eth0, at `provider` by eth1."""

    def __init__(self, directory: Path, machines: list[Machine], layer: Path | None, *, prefix: int = 24) -> None:
        """`layer`: the folder with what all of them have installed; None: nothing, and files are in memory alone."""
        self.machines = machines
        self._directory = directory
        self._layer = layer
        self._prefix = prefix
        self._holder: subprocess.Popen[str] | None = None

    def start(self, checkout: Path) -> None:
        """Raises AssertionError where machines cannot be made."""
        layer = self._layer or self._directory / "layer"
        command = ["unshare", "--net", "--mount", "--kill-child", "--fork", "/bin/bash", "-c", _BASE]
        memory = "" if self._layer else str(self._directory)
        self._holder = _hold(command, os.environ | {"LAYER": str(layer), "MEMORY": memory})
        hosts = "127.0.0.1 localhost\n" + "".join(f"{each.address} {each.name}\n" for each in self.machines)
        for machine in self.machines:
            machine.start(layer / "base", checkout, beside=_child(self._holder))
            self._plug(machine)
            machine.write("/etc/hosts", hosts)

    def _plug(self, machine: Machine) -> None:
        for number, bridge in enumerate(("lan", "provider")):
            device = f"{number}-{machine.name}"[:15]
            self._inside(
                f"ip link add {device} type veth peer name eth{number} netns {machine.pid}; "
                f"ip link set {device} master {bridge}; ip link set {device} up"
            )
            machine.run(f"ip link set eth{number} up")
        machine.run(f"ip addr add {machine.address}/{self._prefix} dev eth0")

    def _inside(self, script: str) -> None:
        assert self._holder is not None
        inside = ["nsenter", f"--target={_child(self._holder)}", "--net", "bash", "-ec", script]
        subprocess.run(inside, check=True, timeout=30)

    def stop(self) -> None:
        for machine in self.machines:
            machine.stop()
        if self._holder is not None:
            self._holder.kill()
            _release(self._holder)
            self._holder = None
