"""Real guests on two hosts, each a namespace with a plane of its own: they meet over VXLAN, as their group allows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kilonova import netns
from kilonova.allinone import libvirtd
from kilonova.cli.guest_image import guest_cache
from kilonova.guest.build import build_image
from kilonova.network.plane import names
from tests.support import planes
from tests.support.neutron_documents import Json
from tests.support.planes import TwoHosts, until

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="real guests need root and QEMU"),
]

LOOK = """#!/bin/sh
exec >/dev/ttyS0
until ping -c 1 -W 1 {other} >/dev/null; do sleep 1; done
echo "reached {other}"
until page=$(timeout 10 wget -q -O - http://{other}/) && [ -n "$page" ]; do sleep 1; done
echo "page: $page"
knock() {{ nc -w 3 {other} 22 </dev/null 2>/dev/null | grep -q SSH; }}
knock && echo "SSH of {other} answers too early" || echo "SSH of {other} is silent"
until knock; do sleep 1; done
echo "SSH of {other} answers"
"""
"""User data: what one guest finds out about the other, which takes as long as it takes on an emulated machine."""


class Machine:
    """A guest of QEMU's whose NIC is the port's tap on that host."""

    def __init__(self, two: TwoHosts, host: str, port: Json, image: Path) -> None:
        self.console = two.directory / f"{port['name']}.console"
        command = [
            "qemu-system-x86_64", "-machine", "pc", "-m", "128", "-display", "none", "-nodefaults",
            "-accel", "tcg,tb-size=32", "-serial", f"file:{self.console}", "-snapshot",
            "-drive", f"file={image},format=qcow2,if=virtio",
            "-netdev", f"tap,id=net,ifname={names.tap(port['id'])},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net,mac={port['mac_address']},romfile=",
        ]  # fmt: skip
        self._process = netns.in_namespace(
            netns.path_of(two.space(host)),
            lambda: subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ),
        )

    def says(self, text: str) -> bool:
        assert self._process.poll() is None, self._process.communicate()
        return self.console.exists() and text in self.console.read_text(errors="replace")

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def machine(two: TwoHosts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Json], Machine]]:
    monkeypatch.setattr(planes, "PATIENCE", 400.0)
    image = build_image(guest_cache())
    made: list[Machine] = []

    def make(host: str, port: Json) -> Machine:
        made.append(Machine(two, host, port, image))
        return made[-1]

    yield make
    for each in made:
        each.end()


async def test_guests_on_two_hosts_meet_over_vxlan(two: TwoHosts, machine: Callable[[str, Json], Machine]) -> None:
    world = two.documents
    network = world.network("lan", 7)
    subnet = world.subnet("lan", network, "10.0.0.0/24")
    group = world.group(
        "g", {"direction": "egress"}, {"protocol": "icmp"},
        {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80},
    )  # fmt: skip
    for rule in group["security_group_rules"][1:]:
        rule["remote_group_id"] = group["id"]
    world.dhcp_port(network, "h1", (subnet, "10.0.0.2"))
    where = {"a": ("h1", "10.0.0.5", "10.0.0.6"), "b": ("h2", "10.0.0.6", "10.0.0.5")}
    ports = {
        name: world.port(name, network, host, (subnet, address), security_groups=[group["id"]])
        for name, (host, address, _) in where.items()
    }
    for name, port in ports.items():
        server, other = port["device_id"], where[name][2]
        told = {"meta_data.json": json.dumps({"uuid": server, "hostname": name}), "user_data": LOOK.format(other=other)}
        two.told |= {(server, f"/openstack/latest/{file}"): text.encode() for file, text in told.items()}
    await two.send()
    guests = {name: machine(where[name][0], port) for name, port in ports.items()}

    async def both_say(text: str) -> None:
        for name, guest in guests.items():
            wanted = text.format(me=name, my=where[name][1], peer="b" if name == "a" else "a", other=where[name][2])
            await until(lambda guest=guest, wanted=wanted: guest.says(wanted))  # type: ignore[misc]

    await both_say("guest ready {me} {my} src=metadata")
    await both_say("reached {other}")
    await both_say("page: {peer} boots=1")
    await both_say("SSH of {other} is silent")
    ssh = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_group_id": group["id"]}
    group["security_group_rules"].append(group["security_group_rules"][1] | ssh)
    await two.send()
    await both_say("SSH of {other} answers")
    await both_say("user_data done rc=0")
