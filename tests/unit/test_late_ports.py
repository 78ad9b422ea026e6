"""A process that was paused makes a port that others have long given back: it does not stay with the server."""

from __future__ import annotations

import pytest

from kilonova.compute import network_info
from kilonova.db import servers
from kilonova.networking import Document
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud
from kilonova.testing.identity import PROJECT
from kilonova.testing.network import FakeNetworking
from kilonova.workflows.steps import ports
from tests.support.port_servers import booted, gone
from tests.unit.test_attach import attached, detach, idle, until


async def cached(cloud: TestCloud, uuid: str) -> list[str]:
    server = await cloud.rt.db.read(lambda tx: servers.get(tx, uuid))
    assert server is not None
    return [nic.port_id for nic in network_info.nics_of(server.network_info)]


async def make_late(network: FakeNetworking, like: Document, mac: str) -> str:
    (made,) = await network.create(
        "ports",
        [{name: like[name] for name in ("network_id", "project_id", "device_id", "device_owner", "binding:host_id")}
         | {"mac_address": mac, "admin_state_up": True}],
    )  # fmt: skip
    return str(made["id"])


@pytest.mark.parametrize("salt", [0, 1])
async def test_a_port_made_after_its_detach_goes(
    api: Client, network: FakeNetworking, cloud: TestCloud, salt: int
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}, {"uuid": net["id"]}])
    places = {ports.mac_of(server["id"], place): place for place in ("0", "1")}
    first, second = sorted(network.ports_of(server["id"]), key=lambda port: places[port["mac_address"]])
    await detach(api, server, first["id"])
    await idle(api, cloud)
    late = await make_late(network, first, ports.mac_of(server["id"], "0", salt))
    await cloud.conductor.network_info.once()

    async def away() -> bool:
        return late not in network.collections["ports"]

    await until(away)
    await idle(api, cloud)
    assert await cached(cloud, server["id"]) == [second["id"]]
    assert [port["id"] for port in network.ports_of(server["id"])] == [second["id"]]
    assert await cloud.conductor.network_info.once() == 0


async def test_a_users_own_port_bound_after_its_detach_is_given_back(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}])
    (own,) = await network.create("ports", [{"network_id": net["id"], "project_id": PROJECT, "admin_state_up": True}])
    await attached(api, server, port_id=own["id"])
    await detach(api, server, own["id"])
    await idle(api, cloud)
    owner = {"device_id": server["id"], "device_owner": "compute:nova", "binding:host_id": "host-1"}
    await network.update("ports", own["id"], owner)
    await cloud.conductor.network_info.once()

    async def free() -> bool:
        return bool(network.collections["ports"][own["id"]]["device_id"] == "")

    await until(free)
    await gone(api, server["id"])
    assert list(network.collections["ports"]) == [own["id"]]


async def test_what_somebody_else_binds_to_the_server_is_no_business_of_ours(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}])
    (mine,) = network.ports_of(server["id"])
    strange = await make_late(network, mine, "fa:16:3e:00:00:01")
    attached_again = await attached(api, server, net_id=net["id"])
    await cloud.conductor.network_info.once()
    await idle(api, cloud)
    assert {port["id"] for port in network.ports_of(server["id"])} == {mine["id"], strange, attached_again}
