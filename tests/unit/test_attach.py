"""Interfaces attached to servers and detached from them, on a cloud in this process with Networking in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud
from kilonova.testing.identity import OTHER_PROJECT, PROJECT
from kilonova.testing.network import FakeNetworking
from tests.support.port_servers import IMAGE, booted, gone, settled


async def attach(api: Client, server: dict[str, Any], *, version: str = "2.90", **asked: Any) -> httpx.Response:
    body = {"interfaceAttachment": asked} if asked else {}
    return await api("POST", f"/servers/{server['id']}/os-interface", body, token="member", version=version)


async def attached(api: Client, server: dict[str, Any], **asked: Any) -> str:
    answer = await attach(api, server, **asked)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["interfaceAttachment"]["port_id"])


async def detach(api: Client, server: dict[str, Any], port_id: str) -> None:
    answer = await api("DELETE", f"/servers/{server['id']}/os-interface/{port_id}", token="member")
    assert (answer.status_code, answer.text) == (202, "")


async def interfaces(api: Client, server: dict[str, Any]) -> list[str]:
    shown = (await api("GET", f"/servers/{server['id']}/os-interface")).json()["interfaceAttachments"]
    return [interface["port_id"] for interface in shown]


async def until(what: Any) -> None:
    for _ in range(400):
        if await what():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


async def idle(api: Client, cloud: TestCloud) -> None:
    await cloud.conductor.engine.idle()
    await asyncio.sleep(0.1)
    await cloud.conductor.engine.idle()


async def last_action(api: Client, server: dict[str, Any]) -> dict[str, Any]:
    actions = (await api("GET", f"/servers/{server['id']}/os-instance-actions", version="2.90")).json()
    path = f"/servers/{server['id']}/os-instance-actions/{actions['instanceActions'][0]['request_id']}"
    action: dict[str, Any] = (await api("GET", path, version="2.90")).json()["instanceAction"]
    return action


async def test_an_interface_is_attached_shown_and_detached_again(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    first = network.add_network("first", project_id=PROJECT)
    second = network.add_network("second", project_id=PROJECT, cidrs=("10.1.0.0/24",))
    server = await booted(api, [{"uuid": first["id"]}])
    answer = await attach(api, server, net_id=second["id"], fixed_ips=[{"ip_address": "10.1.0.77"}], tag="blue")
    assert answer.status_code == 200, answer.text
    shown = answer.json()["interfaceAttachment"]
    (port,) = (p for p in network.ports_of(server["id"]) if p["network_id"] == second["id"])
    assert shown == {
        "port_id": port["id"],
        "net_id": second["id"],
        "mac_addr": port["mac_address"],
        "port_state": shown["port_state"],
        "fixed_ips": [{"subnet_id": second["subnets"][0], "ip_address": "10.1.0.77"}],
        "tag": "blue",
    }
    assert (port["binding:host_id"], port["device_owner"]) == ("host-1", "compute:nova")
    driver = cloud.hosts["host-1"].driver
    assert port["id"] in driver.taps(server["id"])
    assert set((await settled(api, server["id"]))["addresses"]) == {"first", "second"}
    await detach(api, server, port["id"])
    await idle(api, cloud)
    assert [p["network_id"] for p in network.ports_of(server["id"])] == [first["id"]]
    assert port["id"] not in network.collections["ports"]
    assert port["id"] not in driver.taps(server["id"])
    assert list((await settled(api, server["id"]))["addresses"]) == ["first"]
    assert (await api("DELETE", f"/servers/{server['id']}/os-interface/{port['id']}")).status_code == 404
    await gone(api, server["id"])
    assert (network.collections["ports"], driver.left()) == ({}, [])


async def test_a_server_without_ports_gets_the_only_network_when_nothing_is_said(
    api: Client, network: FakeNetworking
) -> None:
    server = await booted(api, "none")
    refused = await attach(api, server)
    assert (refused.status_code, "none are available" in refused.text) == (400, True)
    net = network.add_network("only", project_id=PROJECT)
    port_id = await attached(api, server)
    assert network.collections["ports"][port_id]["network_id"] == net["id"]
    network.add_network("another", project_id=PROJECT)
    refused = await attach(api, server)
    assert (refused.status_code, "More than one possible network" in refused.text) == (400, True)
    await gone(api, server["id"])
    assert network.collections["ports"] == {}


async def test_the_users_own_port_is_unbound_at_detach_and_not_deleted(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network(project_id=PROJECT)
    (own,) = await network.create("ports", [{"network_id": net["id"], "project_id": PROJECT}])
    server = await booted(api, "auto")
    assert await attached(api, server, port_id=own["id"]) == own["id"]
    refused = await attach(api, server, port_id=own["id"])
    assert (refused.status_code, f"Port {own['id']} is still in use." in refused.text) == (409, True)
    await detach(api, server, own["id"])
    await idle(api, cloud)
    left = network.collections["ports"][own["id"]]
    assert (left["device_id"], left["device_owner"], left["binding:host_id"]) == ("", "", "")
    # Attached once more it is given back by the server's end, too.
    await attached(api, server, port_id=own["id"])
    await gone(api, server["id"])
    assert list(network.collections["ports"]) == [own["id"]]
    assert network.collections["ports"][own["id"]]["device_id"] == ""


@pytest.mark.parametrize("state", ["pause", "os-stop"])
async def test_paused_and_stopped_servers_are_attached_to_as_well(
    api: Client, network: FakeNetworking, cloud: TestCloud, state: str
) -> None:
    net = network.add_network(project_id=PROJECT)
    server = await booted(api)
    assert (await api("POST", f"/servers/{server['id']}/action", {state: None})).status_code == 202
    await idle(api, cloud)
    port_id = await attached(api, server, net_id=net["id"])
    assert port_id in await interfaces(api, server)
    await detach(api, server, port_id)
    await idle(api, cloud)
    assert port_id not in await interfaces(api, server)


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"net_id": IMAGE}, 404, f"Network {IMAGE} could not be found."),
        ({"port_id": IMAGE}, 404, f"Port id {IMAGE} could not be found."),
        ({"net_id": "{lan}", "port_id": IMAGE}, 400, "Must not input both network_id and port_id"),
        ({"fixed_ips": [{"ip_address": "10.0.0.5"}]}, 400, "Must input network_id when request IP address"),
        ({"net_id": "{lan}", "fixed_ips": [{"ip_address": "10.0.0.9"}]}, 409, "10.0.0.9 is already in use"),
        ({"net_id": "{lan}", "fixed_ips": [{"ip_address": "192.0.2.1"}]}, 400, "not a valid IP"),
        ({"net_id": "{foreign}"}, 404, "could not be found"),
        ({"net_id": "{external}"}, 403, "external network"),
        ({"net_id": "{bare}"}, 400, "requires a subnet"),
        ({"port_id": "{others}"}, 400, "not usable"),
        ({"port_id": "{used}"}, 409, "is still in use"),
        ({"net_id": "{lan}", "tag": "a,b"}, 400, "tag"),
    ],
)
async def test_what_cannot_be_attached_is_refused_and_leaves_nothing(
    api: Client, network: FakeNetworking, asked: dict[str, Any], status: int, message: str
) -> None:
    ids = {
        "lan": network.add_network(project_id=PROJECT)["id"],
        "foreign": network.add_network(project_id=OTHER_PROJECT)["id"],
        "external": network.add_network(project_id=OTHER_PROJECT, external=True)["id"],
        "bare": network.add_network(project_id=PROJECT, cidrs=())["id"],
    }
    taken = {"network_id": ids["lan"], "project_id": PROJECT, "fixed_ips": [{"ip_address": "10.0.0.9"}]}
    (used,) = await network.create("ports", [taken | {"device_id": "somebody"}])
    (others,) = await network.create("ports", [{"network_id": ids["foreign"], "project_id": OTHER_PROJECT}])
    ids |= {"used": used["id"], "others": others["id"]}
    server = await booted(api, "none")
    before = dict(network.collections["ports"])
    filled = {name: value.format(**ids) if isinstance(value, str) else value for name, value in asked.items()}
    answer = await attach(api, server, **filled)
    assert (answer.status_code, message in answer.text) == (status, True), answer.text
    assert network.collections["ports"] == before
    assert (await settled(api, server["id"]))["status"] == "ACTIVE"
    assert await interfaces(api, server) == []
    # Nothing of it stands in the way of the next one.
    await attached(api, server, net_id=ids["lan"])


async def test_the_quota_of_ports_holds_for_attaching(api: Client, network: FakeNetworking) -> None:
    net = network.add_network(project_id=PROJECT)
    server = await booted(api, "auto")
    network.port_quota[PROJECT] = 1
    answer = await attach(api, server, net_id=net["id"])
    assert (answer.status_code, "Maximum number of ports exceeded" in answer.text) == (403, True)


async def test_many_at_once_wait_for_each_other_and_all_come_to_pass(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network(project_id=PROJECT)
    server = await booted(api, "auto")
    attaching = [asyncio.create_task(attach(api, server, net_id=net["id"])) for _ in range(6)]
    await until(lambda: waiting(cloud))
    # What needs the server for itself waits behind them, and nothing else gets in before it.
    stop = await api("POST", f"/servers/{server['id']}/action", {"os-stop": None})
    assert stop.status_code == 202
    assert (await attach(api, server, net_id=net["id"])).status_code == 409
    answers = await asyncio.gather(*attaching)
    assert [answer.status_code for answer in answers] == [200] * 6
    made = {answer.json()["interfaceAttachment"]["port_id"] for answer in answers}
    assert len(made) == 6
    await until(lambda: stopped(api, server))
    assert made < set(await interfaces(api, server))
    for port_id in made:
        await detach(api, server, port_id)
    await until(lambda: only(api, server, 1))
    await idle(api, cloud)
    assert len(network.ports_of(server["id"])) == 1


async def waiting(cloud: TestCloud) -> bool:
    from kilonova.db.tables import operations

    async def read(tx: Any) -> bool:
        rows = await tx.execute(operations.select().where(operations.c.state == "queued"))
        return len(rows.all()) > 0

    return await cloud.rt.db.read(read)


async def stopped(api: Client, server: dict[str, Any]) -> bool:
    shown = (await api("GET", f"/servers/{server['id']}", version="2.90")).json()["server"]
    return bool(shown["status"] == "SHUTOFF" and shown["OS-EXT-STS:task_state"] is None)


async def only(api: Client, server: dict[str, Any], count: int) -> bool:
    return len(await interfaces(api, server)) == count


async def test_a_delete_takes_those_that_wait_along(api: Client, network: FakeNetworking, cloud: TestCloud) -> None:
    net = network.add_network(project_id=PROJECT)
    server = await booted(api, "auto")
    attaching = [asyncio.create_task(attach(api, server, net_id=net["id"])) for _ in range(6)]
    await until(lambda: waiting(cloud))
    await gone(api, server["id"])
    assert {answer.status_code for answer in await asyncio.gather(*attaching)} <= {200, 404, 409}
    await idle(api, cloud)
    assert not await waiting(cloud)
    assert network.collections["ports"] == {}
    assert cloud.hosts["host-1"].driver.left() == []


async def test_a_host_that_cannot_attach_is_told_of_and_leaves_no_port(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network(project_id=PROJECT)
    server = await booted(api, "auto", metadata={"sim:fail_at": "attached"})
    before = set(network.collections["ports"])
    answer = await attach(api, server, net_id=net["id"])
    assert (answer.status_code, "Simulated failure" in answer.text) == (500, True)
    assert set(network.collections["ports"]) == before
    assert len(cloud.hosts["host-1"].driver.taps(server["id"])) == 1
    assert (await settled(api, server["id"]))["status"] == "ACTIVE"
    assert (await last_action(api, server))["message"] == "Error"


async def test_a_guest_that_does_not_let_go_is_asked_again(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    network.add_network(project_id=PROJECT)
    server = await booted(api, "auto", metadata={"sim:fail_at": "detached:2:transient"})
    (port_id,) = await interfaces(api, server)
    await detach(api, server, port_id)
    await until(lambda: only(api, server, 0))
    await idle(api, cloud)
    assert cloud.hosts["host-1"].driver.taps(server["id"]) == []


async def test_a_guest_that_never_lets_go_keeps_its_interface(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    network.add_network(project_id=PROJECT)
    server = await booted(api, "auto", metadata={"sim:fail_at": "detached"})
    (port_id,) = await interfaces(api, server)
    await detach(api, server, port_id)
    await idle(api, cloud)
    assert await interfaces(api, server) == [port_id]
    assert cloud.hosts["host-1"].driver.taps(server["id"]) == [port_id]
    assert list((await settled(api, server["id"]))["addresses"]) == ["private"]
    action = await last_action(api, server)
    assert (action["action"], action["message"]) == ("detach_interface", "Error")
    assert "Simulated failure" in str(action["events"])


# -- what others do to ports


async def test_a_port_that_is_deleted_in_networking_leaves_the_guest(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}, {"uuid": net["id"]}])
    first, second = [port["id"] for port in network.ports_of(server["id"])]
    await network.delete("ports", first)
    driver = cloud.hosts["host-1"].driver

    async def left() -> bool:
        return driver.taps(server["id"]) == [second]

    await until(left)
    await idle(api, cloud)
    shown = await settled(api, server["id"])
    assert [entry["addr"] for entry in shown["addresses"]["lan"]] == [
        network.collections["ports"][second]["fixed_ips"][0]["ip_address"]
    ]
    action = await last_action(api, server)
    assert (action["action"], action["message"]) == ("detach_interface", None)


async def test_what_lost_events_told_of_is_found_by_looking(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    servers = [await booted(api, [{"uuid": net["id"]}]) for _ in range(3)]
    bare = await booted(api, "none")
    network.on_event = None
    lost, renumbered, same = (network.ports_of(server["id"])[0]["id"] for server in servers)
    await network.delete("ports", lost)
    await network.update("ports", renumbered, {"fixed_ips": [{"ip_address": "10.0.0.200"}]})
    before = network.calls.total()
    assert await cloud.conductor.network_info.once() == 2
    assert network.calls.total() - before == 5

    async def up_to_date() -> bool:
        shown = [(await settled(api, server["id"]))["addresses"] for server in (*servers, bare)]
        addresses = [[entry["addr"] for entry in entries.get("lan", [])] for entries in shown]
        own = network.collections["ports"][same]["fixed_ips"][0]["ip_address"]
        return addresses == [[], ["10.0.0.200"], [own], []]

    await until(up_to_date)
    await idle(api, cloud)
    assert cloud.hosts["host-1"].driver.taps(servers[0]["id"]) == []
    assert await cloud.conductor.network_info.once() == 0


async def test_a_port_that_was_given_to_another_device_is_left_alone(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}])
    (port,) = network.ports_of(server["id"])
    await network.update("ports", port["id"], {"device_id": "a-router", "device_owner": "network:router_interface"})
    await cloud.conductor.network_info.once()

    async def left() -> bool:
        return cloud.hosts["host-1"].driver.taps(server["id"]) == []

    await until(left)
    await idle(api, cloud)
    await gone(api, server["id"])
    assert network.collections["ports"][port["id"]]["device_id"] == "a-router"


@pytest.mark.parametrize("action", ["rebuild", "reboot", "stop and start"])
async def test_other_actions_keep_the_ports_and_plug_lost_taps_again(
    api: Client, network: FakeNetworking, cloud: TestCloud, action: str
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}, {"uuid": net["id"]}])
    ports = sorted(port["id"] for port in network.ports_of(server["id"]))
    driver = cloud.hosts["host-1"].driver
    bodies: dict[str, list[dict[str, Any]]] = {
        "rebuild": [{"rebuild": {"imageRef": IMAGE}}],
        "reboot": [{"reboot": {"type": "HARD"}}],
        "stop and start": [{"os-stop": None}, {"os-start": None}],
    }
    # The namespace that they lived in is gone.
    driver._host.guests[server["id"]].taps = []
    for body in bodies[action]:
        assert (await api("POST", f"/servers/{server['id']}/action", body)).status_code == 202
        await idle(api, cloud)
    assert (await settled(api, server["id"]))["status"] == "ACTIVE"
    assert sorted(driver.taps(server["id"])) == ports
    assert sorted(port["id"] for port in network.ports_of(server["id"])) == ports
    assert len((await settled(api, server["id"]))["addresses"]["lan"]) == 2
