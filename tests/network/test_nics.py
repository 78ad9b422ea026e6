"""Taps of guests, made on this kernel beside a plane that tidies up."""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Iterator

import pytest

from kilonova import netns
from kilonova.agent.libvirt.nics import Nics
from kilonova.allinone import libvirtd
from kilonova.nic import Nic

pytestmark = pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="network namespaces need root")


@pytest.fixture
def space() -> Iterator[str]:
    name = f"kt{secrets.token_hex(3)}"
    netns.ensure(name)
    yield name
    netns.remove(name)


def test_a_bridge_that_is_removed_meanwhile_is_made_again(space: str) -> None:
    nics = Nics("deployment", netns.path_of(space))
    stop = threading.Event()

    def tidy() -> None:
        """As a plane whose plan does not have the network yet."""
        while not stop.is_set():
            shown = subprocess.run(["ip", "-n", space, "-br", "link"], capture_output=True, text=True).stdout
            for name in (line.split()[0] for line in shown.splitlines()):
                if name.startswith("brq"):
                    subprocess.run(["ip", "-n", space, "link", "del", name], capture_output=True)

    tidying = [threading.Thread(target=tidy) for _ in range(2)]
    for each in tidying:
        each.start()
    try:
        for number in range(60):
            port = Nic(port_id=f"port-{number:06}", mac=f"fa:16:3e:00:00:{number:02x}", network_id=f"net-{number:07}")
            nics.plug("server", [port])
    finally:
        stop.set()
        for each in tidying:
            each.join()
    taps = subprocess.run(["ip", "-n", space, "-br", "link"], capture_output=True, text=True).stdout
    assert taps.count("tapport-") == 60
    nics.unplug("server")
    assert "tapport-" not in subprocess.run(["ip", "-n", space, "link"], capture_output=True, text=True).stdout
