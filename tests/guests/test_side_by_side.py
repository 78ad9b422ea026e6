"""Two clouds with networks on one machine: neither meets the other, and the machine is as it was before."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import openstack.config
import pytest

from kilonova import netns
from kilonova.allinone import external, libvirtd, uplink
from kilonova.allinone.settings import netns_name
from kilonova.allinone.state import open_state_dir
from kilonova.network.plane.names import Spaces
from tests.support.allinone import Cloud
from tests.support.guests import eventually

pytestmark = [
    pytest.mark.timeout(1200),
    # Of the SDK about itself.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="network namespaces need root"),
]

RESTLESS = ("conf", "neigh", "nf_conntrack_count")
"""Settings by device, and counts."""
FACTS = ("ifname", "master", "mtu", "address", "operstate", "addr_info")


def _shown(*words: str) -> Any:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]") if "-j" in words else done.stdout


class Machine:
    """What there is outside of clouds, and the devices and routes of those that are `ours`."""

    def __init__(self, ours: tuple[str, ...] = ()) -> None:
        def of_another_cloud(device: str) -> bool:
            return device.startswith("kn") and device not in ours

        self.settings = {
            str(path): path.read_bytes()
            for path in Path("/proc/sys/net").rglob("*")
            if path.is_file() and path.stat().st_mode & 0o400 and not set(path.parts) & set(RESTLESS)
        }
        self.rules = _shown("nft", "list", "ruleset")
        self.policies = _shown("ip", "rule", "show")
        self.devices = {
            each["ifname"]: {fact: each.get(fact) for fact in FACTS if fact not in ("operstate", "addr_info")}
            | {"addresses": sorted(address["local"] for address in each["addr_info"])}
            for each in _shown("ip", "-j", "addr", "show")
            if not of_another_cloud(each["ifname"])
        }
        self.routes = {
            (each["dst"], each["dev"], each.get("gateway"))
            for family in ("-4", "-6")
            for each in _shown("ip", family, "-j", "route", "show", "table", "main")
            if not of_another_cloud(each["dev"])
        }

    def untouched(self) -> tuple[Any, ...]:
        return self.settings, self.rules, self.policies


class Side:
    """One of the clouds, with a router between a network and the world."""

    def __init__(self, directory: Path) -> None:
        self.cloud = Cloud(directory, "--hypervisor", "libvirt", "--networking", "neutron")

    def start(self) -> None:
        self.cloud.up()
        self.id = open_state_dir(self.cloud.directory).layout.cloud_id
        self.spaces = Spaces(netns_name(self.id))
        config = openstack.config.OpenStackConfig(
            config_files=[str(self.cloud.directory / "clouds.yaml")], load_envvars=False
        )
        self.network = openstack.connection.Connection(config=config.get_one("kilonova")).network
        lan = self.network.create_network(name="lan")
        subnet = self.network.create_subnet(network_id=lan.id, ip_version=4, cidr="10.0.0.0/24", name="lan")
        public = self.network.find_network("public")
        self.router = self.network.create_router(name="lan", external_gateway_info={"network_id": public.id})
        self.network.add_interface_to_router(self.router, subnet=subnet.id)

    @property
    def device(self) -> str:
        return uplink.outer_device(self.id)

    @property
    def outside(self) -> str:
        router = self.network.get_router(self.router)
        return str(router.external_gateway_info["external_fixed_ips"][0]["ip_address"])

    def answers(self) -> bool:
        """Its router, as this machine sees it: nobody listens there, and it says so."""
        try:
            socket.create_connection((self.outside, 9), timeout=1).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Callable[[str], Side]]:
    made: list[Side] = []

    def make(name: str) -> Side:
        made.append(Side(tmp_path / name))
        made[-1].start()
        return made[-1]

    yield make
    for side in made:
        side.cloud.down()


def test_clouds_side_by_side_leave_each_other_and_the_machine_alone(sides: Callable[[str], Side]) -> None:
    before = Machine()
    one, two = sides("one"), sides("two")
    assert one.id != two.id
    for side in (one, two):
        eventually(side.answers)
    meanwhile = Machine((one.device, two.device))
    assert meanwhile.untouched() == before.untouched()
    assert set(meanwhile.devices) - set(before.devices) == {one.device, two.device}
    assert {name: meanwhile.devices[name] for name in before.devices} == before.devices
    added = {dst for dst, device, _ in meanwhile.routes - before.routes if device in (one.device, two.device)}
    wide = {str(external.external_range(side.id).cidr) for side in (one, two)}
    assert added - {"fe80::/64"} == wide
    assert {route for route in meanwhile.routes - before.routes if route[1] not in (one.device, two.device)} == set()
    # What one does is nothing to the other.
    subprocess.run(["ip", "netns", "exec", one.spaces.host, "nft", "flush", "ruleset"], check=True)
    one.cloud.kill()
    one.cloud.down()
    assert netns.names(one.spaces.host) == []
    assert two.answers()
    assert two.network.get_router(two.router).status == "ACTIVE"
    two.cloud.down()
    after = Machine((one.device, two.device))
    assert (after.untouched(), after.devices, after.routes) == (before.untouched(), before.devices, before.routes)
