"""Servers' networks by the ordinary client: every way to give a server ports, and to change them afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.cloud import UserCloud

pytestmark = pytest.mark.timeout(1800)

NEW = ("--os-compute-api-version", "2.93")
PATIENCE = 60.0


class Nets:
    """Networks `lan` (10.77.0.0/24, with a router to the world) and `side` (10.78.0.0/24), and a flavor for servers."""

    def __init__(self, cloud: UserCloud, image: str, flavor: str) -> None:
        self.cloud = cloud
        self._words = ("--image", image, "--flavor", flavor)
        for name, cidr in (("lan", "10.77.0.0/24"), ("side", "10.78.0.0/24")):
            cloud.openstack("network", "create", name)
            cloud.openstack("subnet", "create", "--network", name, "--subnet-range", cidr, name)
        cloud.openstack("router", "create", "--external-gateway", "public", "lan")
        cloud.openstack("router", "add", "subnet", "lan", "lan")
        cloud.openstack("security", "group", "create", "extra")

    def remove(self) -> None:
        for words in (
            ("router", "remove", "subnet", "lan", "lan"), ("router", "delete", "lan"),
            ("network", "delete", "lan", "side"), ("security", "group", "delete", "extra"),
        ):  # fmt: skip
            self.cloud.openstack(*words)

    def create(self, name: str, *words: str, cloud: str = "kilonova") -> Any:
        """A server that is there."""
        created = self.cloud.show("server", "create", *self._words, *words, "--wait", name, *NEW, cloud=cloud)
        assert created["status"] == "ACTIVE"
        return created

    def addresses(self, server: str) -> dict[str, list[str]]:
        shown = self.cloud.server(server)["addresses"]
        return {network: [each["addr"] for each in addresses] for network, addresses in shown.items()}

    def ports(self, server_id: str) -> list[Any]:
        return list(self.cloud.of_networking(f"/ports?device_id={server_id}")["ports"])

    def port(self, port: str) -> Any:
        return self.cloud.of_networking(f"/ports/{port}")["port"]

    def id(self, kind: str, name: str) -> str:
        (found,) = self.cloud.of_networking(f"/{kind}?name={name}")[kind.replace("-", "_")]
        return str(found["id"])

    def delete(self, *servers: str) -> None:
        self.cloud.openstack("server", "delete", "--wait", *servers)


@pytest.fixture(scope="module")
def nets(cloud: UserCloud, image: str, flavor: str) -> Iterator[Nets]:
    made = Nets(cloud, image, flavor)
    yield made
    made.remove()


def eventually(check: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < until
        time.sleep(0.3)


def test_ports_asked_for_at_boot(nets: Nets) -> None:
    mine = nets.cloud.value(
        *("port", "create", "--network", "side", "--fixed-ip", "ip-address=10.78.0.60", "mine"), column="id"
    )
    created = nets.create(
        "several", "--nic", "net-id=lan,v4-fixed-ip=10.77.0.50,tag=red", "--port", "mine", "--network", "side",
        "--security-group", "extra",
    )  # fmt: skip
    shown = nets.addresses("several")
    assert shown["lan"] == ["10.77.0.50"]
    assert shown["side"][0] == "10.78.0.60"
    assert len(shown["side"]) == 2
    ports = {each["id"]: each for each in nets.ports(created["id"])}
    assert {each["status"] for each in ports.values()} == {"ACTIVE"}
    # The user's own port keeps the groups that it has; ours have what was asked for.
    extra = nets.id("security-groups", "extra")
    assert [each["security_groups"] for id, each in ports.items() if id != mine] == [[extra], [extra]]
    assert ports[mine]["security_groups"] != [extra]
    tagged = nets.cloud.interfaces("several")
    assert [each.get("tag") for each in tagged if each["fixed_ips"][0]["ip_address"] == "10.77.0.50"] == ["red"]
    nets.delete("several")
    # Ours are gone; the user's own is there and free.
    assert nets.ports(created["id"]) == []
    left = nets.port(mine)
    assert (left["device_id"], left["device_owner"], left["binding:host_id"], left["status"]) == ("", "", "", "DOWN")
    nets.cloud.openstack("port", "delete", mine)


def test_no_network_and_a_network_by_itself(nets: Nets) -> None:
    nets.create("none", "--nic", "none")
    assert nets.addresses("none") == {}
    nets.delete("none")
    # A project without a network gets one made.
    nets.create("auto", "--nic", "auto", cloud="kilonova-demo")
    shown = json.loads(nets.cloud.openstack("server", "show", "auto", "-f", "json", cloud="kilonova-demo"))
    ((addresses),) = shown["addresses"].values()
    assert len(addresses) >= 1
    nets.cloud.openstack("server", "delete", "--wait", "auto", cloud="kilonova-demo")
    nets.cloud.openstack("network", "auto", "allocated", "topology", "delete", cloud="kilonova-demo")
    with pytest.raises(AssertionError, match="More than one possible network"):
        nets.create("ambiguous", "--nic", "auto")


@pytest.fixture(scope="module")
def server(nets: Nets) -> Iterator[str]:
    nets.create("changing", "--network", "lan")
    yield "changing"
    nets.delete("changing")


def test_networks_and_ports_come_and_go(nets: Nets, server: str) -> None:
    openstack = nets.cloud.openstack
    openstack("server", "add", "network", "--tag", "blue", server, "side", *NEW)
    eventually(lambda: set(nets.addresses(server)) == {"lan", "side"})
    assert "blue" in [each.get("tag") for each in nets.cloud.interfaces(server)]
    openstack("server", "remove", "network", server, "side")
    eventually(lambda: set(nets.addresses(server)) == {"lan"})
    port = nets.cloud.value("port", "create", "--network", "side", "own", column="id")
    openstack("server", "add", "port", server, "own")
    eventually(lambda: nets.port(port)["status"] == "ACTIVE")
    openstack("server", "remove", "port", server, "own")
    eventually(lambda: set(nets.addresses(server)) == {"lan"})
    assert nets.port(port)["device_id"] == ""
    openstack("port", "delete", "own")


def test_fixed_ips_come_and_go(nets: Nets, server: str) -> None:
    openstack = nets.cloud.openstack
    openstack("server", "add", "fixed", "ip", "--fixed-ip-address", "10.78.0.80", server, "side", *NEW)
    eventually(lambda: nets.addresses(server).get("side") == ["10.78.0.80"])
    # By the server's own action, as clients of the old versions do.
    before = nets.addresses(server)["lan"]
    nets.cloud.act(server, {"addFixedIp": {"networkId": nets.id("networks", "lan")}})
    eventually(lambda: len(nets.addresses(server)["lan"]) == len(before) + 1)
    (added,) = set(nets.addresses(server)["lan"]) - set(before)
    # The last version that has it; the client asks for the newest when nothing is said.
    openstack("server", "remove", "fixed", "ip", server, added, "--os-compute-api-version", "2.43")
    eventually(lambda: nets.addresses(server)["lan"] == before)
    openstack("server", "remove", "network", server, "side")
    eventually(lambda: set(nets.addresses(server)) == {"lan"})


def test_security_groups_come_and_go(nets: Nets, server: str) -> None:
    def groups() -> set[str]:
        return {each["name"] for each in nets.cloud.server(server)["security_groups"]}

    nets.cloud.openstack("server", "add", "security", "group", server, "extra")
    assert groups() == {"default", "extra"}
    nets.cloud.openstack("server", "remove", "security", "group", server, "extra")
    assert groups() == {"default"}


def test_a_floating_ip_comes_and_goes(nets: Nets, server: str) -> None:
    openstack = nets.cloud.openstack
    made = nets.cloud.show("floating", "ip", "create", "public")
    address, path = made["floating_ip_address"], f"/floatingips/{made['id']}"

    def status() -> str:
        return str(nets.cloud.of_networking(path)["floatingip"]["status"])

    fixed = nets.addresses(server)["lan"]
    openstack("server", "add", "floating", "ip", server, address)
    eventually(lambda: nets.addresses(server)["lan"] == [*fixed, address])
    eventually(lambda: status() == "ACTIVE")
    openstack("server", "remove", "floating", "ip", server, address)
    eventually(lambda: nets.addresses(server)["lan"] == fixed)
    eventually(lambda: status() == "DOWN")
    openstack("floating", "ip", "delete", address)
