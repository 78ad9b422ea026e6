"""Machines that are network namespaces with host names, on one switch; files and users are this machine's own.

What is under way to or from a machine that is cut off vanishes: no connection is refused or reset.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.processes import HERE, Place

_INSIDE = "KILONOVA_IN_NAMESPACES"
_PREFIX = 24


def lacking() -> str:
    """Why machines cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "machines of namespaces need root"
    tried = subprocess.run(
        [*_UNSHARE, "sh", "-c", "ip link add lan type bridge && nft add table inet t && unshare --net --uts true"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return f"no machines of namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


_UNSHARE = ("unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child")


def go_inside(module: str) -> None:
    """Go on in namespaces of our own, where nothing outlives us; returns once there."""
    if os.environ.get(_INSIDE):
        return
    os.environ[_INSIDE] = "1"
    os.execvp(_UNSHARE[0], [*_UNSHARE, sys.executable, "-m", module, *sys.argv[1:]])


def _run(*command: str, content: str | None = None) -> None:
    done = subprocess.run(command, input=content, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


@dataclass(frozen=True, kw_only=True)
class Machine(Place):
    name: str
    holders: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False)
    """The last of them keeps its namespaces."""

    def command(self, arguments: list[str]) -> list[str]:
        return ["nsenter", f"--target={self.holders[-1].pid}", "--net", "--uts", "--", *arguments]

    def boot(self) -> None:
        """Have namespaces of its own, and its name."""
        ready = "hostname $0 && ip link set lo up && echo && exec sleep infinity"
        holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", ready, self.name],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert holder.stdout is not None
        with holder.stdout as said:
            if said.readline() != b"\n":
                raise RuntimeError(f"machine {self.name} was not made")
        self.holders.append(holder)

    def end(self) -> None:
        """What still runs there keeps its namespaces."""
        self.holders[-1].kill()
        self.holders[-1].wait(30)

    def _filter(self, table: str, **rules: str) -> None:
        """A table of nftables with a chain at each of these hooks, which has one rule."""
        lines = [f"add table inet {table}"]
        for hook, rule in rules.items():
            lines.append(f"add chain inet {table} {hook} {{ type filter hook {hook} priority 0; }}")
            lines.append(f"add rule inet {table} {hook} {rule} drop")
        _run(*self.command(["nft", "-f", "-"]), content="\n".join([*lines, ""]))

    def swallow(self, port: int) -> None:
        """What goes to the TCP port or comes from it vanishes."""
        self._filter(f"swallow{port}", input=f"tcp dport {port}", output=f"tcp sport {port}")

    def let_through(self, port: int) -> None:
        _run(*self.command(["nft", "delete", "table", "inet", f"swallow{port}"]))

    def deafen(self) -> None:
        """What others send vanishes; what it sends arrives."""
        self._filter("deaf", input="iifname eth0")

    def hear(self) -> None:
        _run(*self.command(["nft", "delete", "table", "inet", "deaf"]))


@dataclass
class Switch:
    """A bridge of the namespace that this process is in, with an address of our own on it, and its machines."""

    network: str = "192.168.102"
    machines: dict[str, Machine] = field(default_factory=dict)

    def start(self, numbers: dict[str, int]) -> None:
        """Make machines, by name and last part of the address. Raises RuntimeError."""
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "lan", "type", "bridge", "mcast_snooping", "0")
        _run("ip", "addr", "add", f"{self.network}.1/{_PREFIX}", "dev", "lan")
        _run("ip", "link", "set", "lan", "up")
        for name, number in numbers.items():
            machine = Machine(address=f"{self.network}.{number}", name=name)
            machine.boot()
            self.machines[name] = machine
            self._wire(machine)

    def _wire(self, machine: Machine) -> None:
        number, space = int(machine.address.rpartition(".")[2]), str(machine.holders[-1].pid)
        # Whoever knows the machine by its card's number knows the next card too.
        card = ("name", "eth0", "address", f"02:00:00:00:00:{number:02x}", "netns", space)
        _run("ip", "link", "add", machine.name, "type", "veth", "peer", *card)
        _run(*machine.command(["ip", "addr", "add", f"{machine.address}/{_PREFIX}", "dev", "eth0"]))
        _run(*machine.command(["ip", "link", "set", "eth0", "up"]))
        _run("ip", "link", "set", machine.name, "master", "lan", "up")

    def lose_power(self, machine: Machine, end: Callable[[], None]) -> None:
        """Its processes are killed by `end`, nobody hears of it, and the machine then boots and knows of nothing."""
        self.unplug(machine)
        end()
        machine.end()
        # What the system still has to say of their connections stays in the old namespace.
        _run("ip", "link", "del", machine.name)
        machine.boot()
        self._wire(machine)

    def unplug(self, machine: Machine) -> None:
        """The switch passes nothing of the machine's on, and nothing to it; the cable seems to be fine."""
        _run("bridge", "link", "set", "dev", machine.name, "state", "disabled")

    def plug(self, machine: Machine) -> None:
        _run("bridge", "link", "set", "dev", machine.name, "state", "forwarding")

    def stop(self) -> None:
        for machine in self.machines.values():
            machine.end()


SERVICES = "services01"
"""Where database, broker, Identity and Image are."""


@dataclass(frozen=True)
class Site:
    """A machine of services, and machines of a controller's roles and of a compute agent each, by their number."""

    switch: Switch

    @property
    def services(self) -> Machine:
        return self.switch.machines[SERVICES]

    def place(self, role: str, number: int) -> Machine:
        kind = "compute" if role == "compute" else "controller"
        return self.switch.machines[f"{kind}{number:02d}"]


@contextmanager
def site(controllers: int, computes: int) -> Iterator[Site]:
    """To be used after `go_inside`."""
    numbers = {SERVICES: 10}
    for kind, first, count in (("controller", 11, controllers), ("compute", 21, computes)):
        numbers |= {f"{kind}{number + 1:02d}": first + number for number in range(count)}
    switch = Switch()
    try:
        switch.start(numbers)
        yield Site(switch)
    finally:
        switch.stop()


def place_of(where: Site | None, role: str, number: int) -> Place:
    return HERE if where is None else where.place(role, number)


def services_of(where: Site | None) -> Place:
    return HERE if where is None else where.services


__all__: Sequence[str] = ("Machine", "Site", "go_inside", "lacking", "place_of", "services_of", "site")
