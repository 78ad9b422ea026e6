"""The role `network` on a real Neutron, with planes that only pretend: what it reads, sends, keeps and reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import kilonova.network.role
from kilonova.network.rest import NeutronRest
from kilonova.network.role import NetworkRole, PlaneHost
from kilonova.network.statuses import PlaneState
from kilonova.network.upkeep import Documents, dhcp_device_id
from kilonova.world import World
from tests.support.neutron import Neutron

HOSTS = ("host-1", "host-2")


def ports_by_host(documents: Documents, hosts: Mapping[str, PlaneHost]) -> Mapping[str, Any]:
    """A plan that names a host's ports and floating IPs, no more."""
    routers = {
        p["device_id"]: p["binding:host_id"] for p in documents["ports"].values() if "router" in p["device_owner"]
    }
    return {
        host: {
            "ports": sorted(p["id"] for p in documents["ports"].values() if p.get("binding:host_id") == host),
            "floatingips": sorted(
                f["id"]
                for f in documents["floatingips"].values()
                if f["port_id"] and routers.get(f["router_id"]) == host
            ),
        }
        for host in hosts
    }


class Planes:
    """Two hosts whose planes do at once what they are told, unless they are deaf."""

    def __init__(self) -> None:
        self.plans: dict[str, Any] = {}
        self.sent = 0
        self.unplugged: set[str] = set()
        self.deaf = False
        self.role: NetworkRole | None = None

    def greet(self, role: NetworkRole) -> None:
        self.role = role
        for host in HOSTS:
            role.greeted(PlaneHost(host=host, incarnation="1"))

    async def send(self, host: str, plan: Any) -> None:
        self.sent += 1
        self.plans[host] = plan
        if not self.deaf:
            self.report(host)

    def report(self, host: str) -> None:
        plan = self.plans[host]
        state = PlaneState(
            ports=frozenset(plan["ports"]) - self.unplugged,
            floatingips={each: "ACTIVE" for each in plan["floatingips"]},
        )
        assert self.role is not None
        self.role.reported(host, "1", state)


@asynccontextmanager
async def role_on(
    neutron: Neutron, planes: Planes, *, hinted: bool = True, full_read: float = 60.0
) -> AsyncIterator[NetworkRole]:
    async def token() -> str:
        return "none"

    rest = NeutronRest(neutron.url, token)
    role = NetworkRole(
        rest,
        World(),
        compute=ports_by_host,
        send=planes.send,
        hints_address=neutron.hints if hinted else "",
        full_read=full_read,
    )
    await role.start()
    planes.greet(role)
    try:
        yield role
    finally:
        await role.stop()
        await rest.close()


async def eventually(true: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """As tests.support.neutron.eventually, in turn with the role; `true` is called in a thread."""
    async with asyncio.timeout(timeout):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.05)
    assert what


def status(neutron: Neutron, kind: str, id: str) -> str:
    found: str = neutron.show(kind, id)["status"]
    return found


def dhcp_ports(neutron: Neutron, network_id: str) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = neutron.call("GET", f"/ports?network_id={network_id}&device_owner=network:dhcp")[
        "ports"
    ]
    return ports


async def test_a_servers_port_becomes_active_once_its_host_has_it(neutron: Neutron) -> None:
    network, _ = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes) as role:
        port = await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        await eventually(lambda: status(neutron, "port", port["id"]) == "ACTIVE", "the port is active")
        assert port["id"] in planes.plans["host-1"]["ports"]
        assert port["id"] not in planes.plans["host-2"]["ports"]
        await eventually(lambda: "network-vif-plugged" in neutron.receiver.of(port["id"]), "Compute knows")
        assert role.ready() is None


async def test_a_port_whose_device_is_gone_goes_down_and_comes_back(neutron: Neutron) -> None:
    network, _ = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes):
        port = await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        await eventually(lambda: status(neutron, "port", port["id"]) == "ACTIVE", "active")
        planes.unplugged = {port["id"]}
        planes.report("host-1")
        await eventually(lambda: status(neutron, "port", port["id"]) == "DOWN", "down")
        planes.unplugged = set()
        planes.report("host-1")
        await eventually(lambda: status(neutron, "port", port["id"]) == "ACTIVE", "active again")


async def test_a_network_gets_one_dhcp_port_when_its_first_server_comes(neutron: Neutron) -> None:
    network, subnet = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes):
        assert await asyncio.to_thread(dhcp_ports, neutron, network["id"]) == []
        await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        await asyncio.to_thread(neutron.server_port, network["id"], "host-2")
        await eventually(lambda: dhcp_ports(neutron, network["id"]), "a DHCP port")
        [port] = await asyncio.to_thread(dhcp_ports, neutron, network["id"])
        assert port["device_id"] == dhcp_device_id(network["id"])
        address = port["fixed_ips"][0]["ip_address"]
        second = await asyncio.to_thread(
            lambda: neutron.create("subnet", network_id=network["id"], cidr="10.0.1.0/24", ip_version=4)
        )
        await eventually(
            lambda: len(dhcp_ports(neutron, network["id"])[0]["fixed_ips"]) == 2, "an address on each subnet"
        )
        [port] = await asyncio.to_thread(dhcp_ports, neutron, network["id"])
        assert {"subnet_id": subnet["id"], "ip_address": address} in port["fixed_ips"]
        for each in (subnet, second):
            await asyncio.to_thread(neutron.call, "PUT", f"/subnets/{each['id']}", {"subnet": {"enable_dhcp": False}})
        await eventually(lambda: not dhcp_ports(neutron, network["id"]), "no DHCP, no port")


async def test_a_second_role_makes_nothing_twice_and_an_extra_port_goes(neutron: Neutron) -> None:
    network, _ = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes):
        port = await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        await eventually(lambda: status(neutron, "port", port["id"]) == "ACTIVE", "active")
        await eventually(lambda: dhcp_ports(neutron, network["id"]), "a DHCP port")
    before = await asyncio.to_thread(dhcp_ports, neutron, network["id"])
    await asyncio.to_thread(
        lambda: neutron.create(
            "port", network_id=network["id"], device_owner="network:dhcp", device_id=dhcp_device_id(network["id"])
        )
    )
    again = Planes()
    async with role_on(neutron, again):
        await eventually(
            lambda: "host-1" in again.plans and port["id"] in again.plans["host-1"]["ports"], "the plan anew"
        )
        await eventually(lambda: len(dhcp_ports(neutron, network["id"])) == 1, "the extra port is gone")
    after = await asyncio.to_thread(dhcp_ports, neutron, network["id"])
    assert len(before) == len(after) == 1
    assert await asyncio.to_thread(status, neutron, "port", port["id"]) == "ACTIVE"


async def test_a_router_is_placed_on_a_living_host_and_its_floating_ip_becomes_active(neutron: Neutron) -> None:
    outside = await asyncio.to_thread(external, neutron)
    network, subnet = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes):
        router = await asyncio.to_thread(
            lambda: neutron.create("router", external_gateway_info={"network_id": outside["id"]})
        )
        path = f"/routers/{router['id']}/add_router_interface"
        await asyncio.to_thread(neutron.call, "PUT", path, {"subnet_id": subnet["id"]})
        port = await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        floating = await asyncio.to_thread(
            lambda: neutron.create("floatingip", floating_network_id=outside["id"], port_id=port["id"])
        )
        await eventually(lambda: status(neutron, "floatingip", floating["id"]) == "ACTIVE", "the floating IP")

        def router_ports() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = neutron.call("GET", f"/ports?device_id={router['id']}")["ports"]
            return found

        await eventually(lambda: {p["status"] for p in router_ports()} == {"ACTIVE"}, "the router's ports")
        assert len({p["binding:host_id"] for p in await asyncio.to_thread(router_ports)} & set(HOSTS)) == 1
        gone = {"floatingip": {"port_id": None}}
        await asyncio.to_thread(neutron.call, "PUT", f"/floatingips/{floating['id']}", gone)
        await eventually(lambda: status(neutron, "floatingip", floating["id"]) == "DOWN", "no port, not active")


def external(neutron: Neutron) -> dict[str, Any]:
    """The cloud's external network, once in a session."""
    found = neutron.call("GET", "/networks?router:external=true")["networks"]
    if found:
        known: dict[str, Any] = found[0]
        return known
    flat = {"provider:network_type": "flat", "provider:physical_network": "public"}
    outside = neutron.create("network", **{"router:external": True, **flat})
    neutron.create("subnet", network_id=outside["id"], cidr="172.24.9.0/24", ip_version=4, enable_dhcp=False)
    return outside


async def test_without_hints_changes_are_found_by_the_next_full_read(
    neutron: Neutron, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a loaded machine one read takes seconds, and twenty times that until the next.
    monkeypatch.setattr(kilonova.network.role, "SHARE", 1)
    network, _ = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes, hinted=False, full_read=0.5):
        await eventually(lambda: "host-1" in planes.plans, "a first plan")
        port = await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        await eventually(lambda: status(neutron, "port", port["id"]) == "ACTIVE", "the port is active")
        await asyncio.to_thread(neutron.call, "DELETE", f"/ports/{port['id']}")
        await eventually(lambda: port["id"] not in planes.plans["host-1"]["ports"], "the port is off the plan")


async def test_plans_are_sent_only_to_hosts_whose_plan_changed(neutron: Neutron) -> None:
    network, _ = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes):
        first = await asyncio.to_thread(neutron.server_port, network["id"], "host-2")
        await eventually(lambda: status(neutron, "port", first["id"]) == "ACTIVE", "active")
        await eventually(lambda: dhcp_ports(neutron, network["id"]), "settled")
        await asyncio.sleep(0.5)
        before, other = planes.sent, planes.plans["host-2"]
        second = await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        await eventually(lambda: status(neutron, "port", second["id"]) == "ACTIVE", "active")
        assert planes.plans["host-2"] is other
        assert planes.sent == before + 1


async def test_a_plane_that_lost_its_plan_gets_it_again(neutron: Neutron) -> None:
    planes = Planes()
    async with role_on(neutron, planes) as role:
        await eventually(lambda: "host-1" in planes.plans, "a plan")
        planes.plans.clear()
        role.greeted(PlaneHost(host="host-1", incarnation="1"), has=False)
        await eventually(lambda: "host-1" in planes.plans, "the plan again")
        planes.plans.clear()
        role.greeted(PlaneHost(host="host-2", incarnation="2"))
        await eventually(lambda: "host-2" in planes.plans, "a plan for the new incarnation")


@pytest.fixture
def own_neutron(tmp_path: Path) -> Iterator[Neutron]:
    running = Neutron(tmp_path / "cloud")
    try:
        running.start()
        yield running
    finally:
        running.close()


async def test_when_neutron_was_away_for_a_while_everything_is_caught_up(own_neutron: Neutron) -> None:
    neutron = own_neutron
    network, _ = await asyncio.to_thread(neutron.network)
    planes = Planes()
    async with role_on(neutron, planes) as role:
        planes.deaf = True
        port = await asyncio.to_thread(neutron.server_port, network["id"], "host-1")
        await eventually(lambda: port["id"] in planes.plans.get("host-1", {}).get("ports", ()), "planned")
        await asyncio.to_thread(neutron.stop)
        planes.deaf = False
        planes.report("host-1")
        role.poke("ports", port["id"])
        await eventually(lambda: role.ready() is not None, "the role says what is wrong")
        assert "Networking" in (role.ready() or "")
        await asyncio.to_thread(neutron.start)
        await eventually(lambda: status(neutron, "port", port["id"]) == "ACTIVE", "the report came through")
        await eventually(lambda: role.ready() is None, "all is well")
