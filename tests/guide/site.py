"""The site of the guide: controller01 and compute01 with all that comes before Compute, a second compute node with
nothing yet, and a client's machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kilonova.cli.guest_image import guest_cache
from kilonova.guest.build import build_image
from tests.guide.base import PACKAGES, Base
from tests.guide.bounded import BoundedBase
from tests.guide.chapter import Step
from tests.guide.deviations import COMMANDS, FIELDS, MORE, WORDS
from tests.guide.machine import Lan, Machine

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def prepare_layer(cache: Path) -> Path:
    """The folder with Debian's packages of the site, installed once. Needs root and the package registry."""
    layer = cache / hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    if (layer / "complete").exists():
        return layer
    shutil.rmtree(layer, ignore_errors=True)
    for part in ("upper", "work", "base"):
        (layer / part).mkdir(parents=True)
    script = f"""
set -e
mount --make-rprivate /
mount -t overlay overlay -o lowerdir=/,upperdir={layer}/upper,workdir={layer}/work {layer}/base
cd {layer}/base
mount -t proc proc proc
mount --bind /dev dev
printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
chroot . apt-get -q -y -o DPkg::Lock::Timeout=300 -o DPkg::Options::=--force-unsafe-io \\
    install --no-install-recommends --no-remove {" ".join(PACKAGES)}
rm usr/sbin/policy-rc.d
"""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    (layer / "complete").touch()
    return layer


class Site:
    def __init__(self, directory: Path, layer: Path | None) -> None:
        """`layer`: of Debian's packages; None: the bounded form, with what this machine has."""
        self.controller = Machine("controller01", "192.168.101.11", directory / "controller01")
        self.compute = Machine("compute01", "192.168.101.21", directory / "compute01")
        self.second = Machine("compute02", "192.168.101.22", directory / "compute02")
        self.user = Machine("client01", "192.168.101.31", directory / "client01")
        machines = [self.controller, self.compute]
        if layer is not None:
            machines += [self.second, self.user]
        self.whole = layer is not None
        self.lan = Lan(directory, machines, layer)
        self.base = (Base if layer else BoundedBase)(self.controller, self.compute)
        self.performed: list[tuple[str, str]] = []
        """Machine and command of each of the guide's steps so far, as it was typed."""
        self._shell = {machine.name: "" for machine in self.lan.machines}
        """What was read into the shell before."""

    def make_machines(self) -> None:
        """Raises AssertionError where the kernel, a container or the place of the checkout does not let us."""
        self.lan.start(CHECKOUT)
        # Checkout and Python may be in a folder that only root can enter; on the machines everybody may.
        above = {*CHECKOUT.parents, *Path(sys.executable).resolve().parents} - {Path("/")}
        folders = " ".join(str(each) for each in sorted(above) if not each.is_relative_to(CHECKOUT))
        for machine in self.lan.machines:
            machine.run(f"chmod o+x {folders}; ln -sf {BIN}/openstack /usr/bin/openstack")
            machine.run(f"cd {CHECKOUT}/src; {BIN}/python -c 'import kilonova.cli'", user="daemon")
        if self.whole:
            self.user.run("ip addr add 203.0.113.1/24 dev eth1")

    def stop(self) -> None:
        self.lan.stop()

    def perform(
        self, step: Step, answers: Sequence[tuple[str, str]] = (), *, check: bool = True, timeout: float = 300
    ) -> str:
        """Type a step's command, and each answer once its prompt has come. What is shown, which is the guide's.

        Raises AssertionError when it is not, or when the command fails (`check`).
        """
        machine = self.machine(step.machine)
        self.performed.append((machine.name, step.command))
        before = self._shell[machine.name]
        if step.command.startswith("source "):
            self._shell[machine.name] = f"{before}{step.command}; "
        script = before + step.command
        said = (
            machine.converse(script, answers, timeout=timeout)
            if answers
            else machine.run(script, timeout=timeout, check=check)
        )
        said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)
        _is_shown(step, said)
        return said

    def put(self, step: Step, path: str, content: str) -> None:
        """A step that edits a file."""
        machine = self.machine(step.machine)
        self.performed.append((machine.name, step.command))
        machine.write(path, content, mode="640")
        machine.run(f"chgrp nova {path}")

    def install(self, step: Step) -> None:
        """In place of a step that installs packages."""
        self.performed.append((step.machine, COMMANDS[step].here))
        self.put_programs(self.machine(step.machine))

    def machine(self, name: str) -> Machine:
        return next(each for each in self.lan.machines if each.name == name)

    def put_programs(self, machine: Machine) -> None:
        """What the packages of the guide bring: the user, the folders, the programs, the units."""
        machine.run(
            "id nova >/dev/null 2>&1 || useradd --system --home-dir /var/lib/nova --shell /usr/sbin/nologin nova"
        )
        machine.run(
            "install -d -o nova -g nova /var/lib/nova /var/log/nova; install -d -m 750 -o root -g nova /etc/nova"
        )
        scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
        for name, target in scripts.items():
            module, _, function = target.partition(":")
            program = (
                f"#!{BIN}/python\nimport sys\nsys.path.insert(0, {str(CHECKOUT / 'src')!r})\n"
                f"from {module} import {function}\nsys.exit({function}())\n"
            )
            machine.write(f"/usr/bin/{name}", program, mode="755")
        machine.run(f"cp {CHECKOUT}/deploy/systemd/*.service /lib/systemd/system/")
        machine.run(f"install -m 755 {CHECKOUT}/tests/guide/systemctl.py /usr/local/sbin/systemctl")

    def prepare_libvirt(self, machine: Machine) -> None:
        """libvirt as it runs where there are neither control groups nor a security module."""
        machine.write(
            "/etc/libvirt/qemu.conf",
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = [ ]\nnamespaces = [ ]\n'
            "remember_owner = 0\n",
        )
        machine.write("/etc/libvirt/libvirtd.conf", 'auth_unix_rw = "none"\nunix_sock_group = "root"\n')
        # Nobody listens for it meanwhile, so it must not go when nobody asks.
        machine.write("/etc/default/libvirtd", "LIBVIRTD_ARGS=\n")
        machine.run("systemctl start virtlogd.service")

    def openstack(self, words: str, *, timeout: float = 120, check: bool = True) -> str:
        return self.base.openstack(words, timeout=timeout, check=check)

    def listed(self, words: str) -> list[dict[str, Any]]:
        """The rows of a list of the ordinary client's."""
        found: list[dict[str, Any]] = json.loads(self.openstack(f"{words} -f json"))
        return found

    def shown(self, words: str) -> dict[str, Any]:
        """What the ordinary client shows of one thing."""
        found: dict[str, Any] = json.loads(self.openstack(f"{words} -f json"))
        return found

    def becomes(self, words: str, column: str, value: str, patience: float = 240) -> None:
        """Until the ordinary client shows the value."""
        words = f". /root/admin-openrc.sh; openstack {words}"
        self.controller.until(f"test \"$({words} -f value -c '{column}')\" = '{value}'", patience, words)

    def ready(self, server: str, address: str, patience: float = 300) -> None:
        """The guest has said on its console that it runs, and with which address."""
        log = f". /root/admin-openrc.sh; openstack console log show {server}"
        self.controller.until(f"{log} | grep 'guest ready {server} {address}'", patience, f"{log} | tail -n 20")


def tiny_image() -> Path:
    """The project's own bootable image."""
    return build_image(guest_cache())


def _is_shown(step: Step, said: str) -> None:
    if step.shown[:1] == ("Field Value",):
        rows = re.findall(r"^\| (\S+) +\| (.*?) *\|$", said, flags=re.MULTILINE)
        seen = [f"{name} {value}" for name, value in rows if name not in FIELDS.get(step, ())]
        assert sorted(name for name, _ in rows if name in FIELDS.get(step, ())) == sorted(FIELDS.get(step, ())), said
        assert len(seen) == len(step.shown), said
        for row in step.shown:
            assert any(re.fullmatch(row, each) for each in seen), f"{row} is not in\n{said}"
        return
    lines = iter(line.strip() for line in said.splitlines())
    for wanted in step.shown or MORE.get(step, ()):
        pattern = re.sub(*WORDS[step], wanted) if step in WORDS else wanted
        assert any(re.search(pattern, line) for line in lines), f"{pattern} is not in\n{said}"
    if not step.shown and step not in MORE:
        assert said.strip() == "", said
