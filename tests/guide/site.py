"""The site of the guide: controller01 and compute01 with all that comes before Compute, and a client's machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kilonova.cli.guest_image import guest_cache
from kilonova.guest.build import build_image
from tests.guide.base import PACKAGES, Base
from tests.guide.machine import Lan, Machine

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CONTROLLER_UNITS = tuple(
    f"openstack-nova-{name}" for name in ("api", "cert", "consoleauth", "scheduler", "conductor", "novncproxy")
)
PROGRAMS = (
    "nova-api", "nova-cert", "nova-conductor", "nova-consoleauth", "nova-scheduler", "nova-novncproxy", "nova-compute",
    "nova-manage", "nova-status", "nova-api-metadata", "kilonova",
)  # fmt: skip


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
chroot . apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends --no-remove {" ".join(PACKAGES)}
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
    def __init__(self, directory: Path, layer: Path) -> None:
        self.controller = Machine("controller01", "192.168.101.11", directory / "controller01")
        self.compute = Machine("compute01", "192.168.101.21", directory / "compute01")
        self.user = Machine("client01", "192.168.101.31", directory / "client01")
        self.lan = Lan(layer, [self.controller, self.compute, self.user])
        self.base = Base(self.controller, self.compute, str(BIN / "openstack"))

    def start(self) -> None:
        self.lan.start(CHECKOUT)
        self.user.run("ip addr add 203.0.113.1/24 dev eth1")
        self.base.start()

    def stop(self) -> None:
        self.lan.stop()

    def install(self, machine: Machine) -> None:
        """What the packages of the guide bring: the user, the folders, the programs, the units."""
        machine.run(
            "id nova >/dev/null 2>&1 || useradd --system --home-dir /var/lib/nova --shell /usr/sbin/nologin nova"
        )
        machine.run(
            "install -d -o nova -g nova /var/lib/nova /var/log/nova; install -d -m 750 -o root -g nova /etc/nova"
        )
        for name in PROGRAMS:
            machine.run(f"ln -sf {BIN / name} /usr/bin/{name}")
        # Whoever runs this may have Python in a folder that only root can enter; on the machines everybody may.
        machine.run(f"chmod o+x {' '.join(str(each) for each in Path(sys.executable).resolve().parents[:-1])}")
        machine.run(f"cp {CHECKOUT}/deploy/systemd/*.service /lib/systemd/system/")
        machine.run(f"install -m 755 {CHECKOUT}/tests/guide/systemctl.py /usr/local/sbin/systemctl")

    def libvirt(self, machine: Machine) -> None:
        """libvirt as it runs where there are neither control groups nor a security module."""
        machine.write(
            "/etc/libvirt/qemu.conf",
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = [ ]\nnamespaces = [ ]\n'
            "remember_owner = 0\n",
        )
        machine.write("/etc/libvirt/libvirtd.conf", 'auth_unix_rw = "none"\nunix_sock_group = "root"\n')
        # Nobody listens for it meanwhile, so it must not go when nobody asks.
        machine.write("/etc/default/libvirtd", "LIBVIRTD_ARGS=\n")
        machine.run("systemctl start virtlogd.service libvirtd.service")

    def openstack(self, words: str, *, timeout: float = 120, check: bool = True) -> str:
        return self.base.openstack(words, timeout=timeout, check=check)

    def ready(self, server: str, address: str, patience: float = 300) -> None:
        """The guest has said on its console that it runs, and with which address."""
        log = f". /root/admin-openrc.sh; {self.base.client} console log show {server}"
        self.controller.until(
            f"{log} | grep 'guest ready {server} {address}'",
            patience,
            f"{log} | tail -n 20",
        )

    def fields(self, words: str) -> dict[str, str]:
        """The rows of the table that the ordinary client prints for one thing."""
        return table(self.openstack(words))


def tiny_image() -> Path:
    """The project's own bootable image."""
    return build_image(guest_cache())


def table(text: str) -> dict[str, str]:
    """Field and Value of each row."""
    rows = re.findall(r"^\| (\S+) +\| (.*?) *\|$", text, flags=re.MULTILINE)
    assert rows, text
    assert rows[0] == ("Field", "Value"), text
    return dict(rows[1:])
