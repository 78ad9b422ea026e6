"""Servers with ports, on a cloud in this process with Networking in memory."""

from __future__ import annotations

import asyncio

import pytest

from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud
from kilonova.testing.identity import OTHER_PROJECT, PROJECT
from kilonova.testing.network import FakeNetworking
from tests.support.port_servers import IMAGE, booted, create, gone, settled


async def test_a_server_gets_a_port_its_address_is_shown_and_nothing_is_left(
    api: Client, network: FakeNetworking, cloud: TestCloud
) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}])
    (port,) = network.ports_of(server["id"])
    assert server["addresses"] == {
        "lan": [
            {
                "version": 4,
                "addr": port["fixed_ips"][0]["ip_address"],
                "OS-EXT-IPS:type": "fixed",
                "OS-EXT-IPS-MAC:mac_addr": port["mac_address"],
            }
        ]
    }
    assert server["security_groups"] == [{"name": "default"}]
    assert (port["binding:host_id"], port["device_owner"], port["status"]) == ("host-1", "compute:nova", "ACTIVE")
    assert cloud.hosts["host-1"].driver.taps(server["id"]) == [port["id"]]
    await gone(api, server["id"])
    assert network.collections["ports"] == {}
    assert cloud.hosts["host-1"].driver.left() == []


async def test_the_users_own_port_is_given_back_and_not_deleted(api: Client, network: FakeNetworking) -> None:
    net = network.add_network(project_id=PROJECT)
    (own,) = await network.create("ports", [{"network_id": net["id"], "project_id": PROJECT}])
    server = await booted(api, [{"port": own["id"]}])
    assert [port["id"] for port in network.ports_of(server["id"])] == [own["id"]]
    again = await create(api, [{"port": own["id"]}])
    assert (again.status_code, again.json()["conflictingRequest"]["message"]) == (
        409,
        f"Port {own['id']} is still in use.",
    )
    await gone(api, server["id"])
    (left,) = network.collections["ports"].values()
    assert (left["id"], left["device_id"], left["device_owner"], left["binding:host_id"]) == (own["id"], "", "", "")


async def test_auto_takes_the_only_network_refuses_several_and_has_one_made(
    api: Client, network: FakeNetworking
) -> None:
    answer = await create(api, "auto")
    server = await settled(api, answer.json()["server"]["id"])
    assert server["status"] == "ERROR"
    assert "automatically allocate" in server["fault"]["message"]
    only = network.add_network("one", project_id=PROJECT)
    assert list((await booted(api, "auto"))["addresses"]) == ["one"]
    assert list((await booted(api, None, version="2.1"))["addresses"]) == ["one"]
    network.add_network("two", project_id=OTHER_PROJECT, shared=True)
    assert (await create(api, "auto")).status_code == 409
    del network.collections["networks"][only["id"]]
    assert list((await booted(api, "auto"))["addresses"]) == ["two"]


async def test_none_and_no_networks_at_all_make_servers_without_ports(api: Client, network: FakeNetworking) -> None:
    assert (await booted(api, None, version="2.1"))["addresses"] == {}
    network.add_network(project_id=PROJECT)
    assert (await booted(api, "none"))["addresses"] == {}
    assert network.collections["ports"] == {}


@pytest.mark.parametrize(
    ("networks", "status", "message"),
    [
        ([{"uuid": "99999999-9999-9999-9999-999999999999"}], 400, "Network 99999999"),
        ([{"port": "99999999-9999-9999-9999-999999999999"}], 400, "Port id 99999999"),
        ([{"uuid": "{foreign}"}], 400, "could not be found"),
        ([{"uuid": "{bare}"}], 400, "requires a subnet"),
        ([{"uuid": "{external}"}], 403, "external network"),
        ([{"uuid": "{lan}", "fixed_ip": "10.0.0.9"}], 400, "already in use"),
    ],
)
async def test_networks_that_cannot_be_used_are_refused_before_anything_changes(
    api: Client, network: FakeNetworking, networks: list[dict[str, str]], status: int, message: str
) -> None:
    ids = {
        "foreign": network.add_network(project_id=OTHER_PROJECT)["id"],
        "bare": network.add_network(project_id=PROJECT, cidrs=())["id"],
        "external": network.add_network(project_id=OTHER_PROJECT, external=True)["id"],
        "lan": network.add_network(project_id=PROJECT)["id"],
    }
    taken = {"network_id": ids["lan"], "project_id": PROJECT, "fixed_ips": [{"ip_address": "10.0.0.9"}]}
    await network.create("ports", [taken])
    asked = [{key: value.format(**ids) for key, value in one.items()} for one in networks]
    answer = await create(api, asked)
    assert answer.status_code == status
    assert message in answer.text
    assert (await api("GET", "/servers")).json() == {"servers": []}


async def test_the_quota_of_ports_bounds_how_many_servers_there_are(api: Client, network: FakeNetworking) -> None:
    net = network.add_network(project_id=PROJECT)
    network.port_quota[PROJECT] = 2
    answer = await create(api, [{"uuid": net["id"]}], min_count=3)
    assert answer.status_code == 403
    assert "Maximum number of ports exceeded" in answer.text
    assert (await create(api, [{"uuid": net["id"]}], min_count=1, max_count=3)).status_code == 202
    servers = (await api("GET", "/servers")).json()["servers"]
    assert [(await settled(api, server["id"]))["status"] for server in servers] == ["ACTIVE"] * 2


async def test_security_groups_are_found_by_name_or_id_and_shown(api: Client, network: FakeNetworking) -> None:
    net = network.add_network(project_id=PROJECT)
    group = network.add_group("web", project_id=PROJECT)
    assert "not found" in (await create(api, [{"uuid": net["id"]}], security_groups=[{"name": "nope"}])).text
    server = await booted(api, [{"uuid": net["id"]}], security_groups=[{"name": group["id"]}])
    assert server["security_groups"] == [{"name": "web"}]
    assert [port["security_groups"] for port in network.ports_of(server["id"])] == [[group["id"]]]
    network.add_group("web", project_id=PROJECT)
    assert (await create(api, [{"uuid": net["id"]}], security_groups=[{"name": "web"}])).status_code == 409


async def test_a_host_where_nothing_can_be_bound_fails_the_boot_and_leaves_no_port(
    api: Client, network: FakeNetworking
) -> None:
    net = network.add_network(project_id=PROJECT)
    network.unbindable.add("host-1")
    server = await settled(api, (await create(api, [{"uuid": net["id"]}])).json()["server"]["id"])
    assert server["status"] == "ERROR"
    assert server["addresses"] == {}
    assert network.collections["ports"] == {}


async def test_a_port_that_was_stored_and_not_bound_is_bound_by_the_next_try(
    api: Client, network: FakeNetworking
) -> None:
    net = network.add_network(project_id=PROJECT)
    network.dies_before_binding = 1
    server = await booted(api, [{"uuid": net["id"]}])
    (port,) = network.ports_of(server["id"])
    assert (port["binding:host_id"], port["binding:vif_type"]) == ("host-1", "bridge")


async def test_news_of_a_port_bring_the_shown_addresses_up_to_date(api: Client, network: FakeNetworking) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}])
    (port,) = network.ports_of(server["id"])
    address = port["fixed_ips"][0]["ip_address"]
    public = network.add_network("public", project_id=OTHER_PROJECT, cidrs=("203.0.113.0/24",), external=True)
    network.on_event = None
    (floating,) = await network.create("floatingips", [{"floating_network_id": public["id"], "project_id": PROJECT}])
    await network.update("floatingips", floating["id"], {"port_id": port["id"]})
    event = {"name": "network-changed", "server_uuid": server["id"], "tag": port["id"]}
    unknown = {"name": "network-changed", "server_uuid": "99999999-9999-9999-9999-999999999999"}
    answer = await api("POST", "/os-server-external-events", {"events": [event, event, unknown]})
    assert answer.status_code == 207
    assert [(e["code"], e["status"]) for e in answer.json()["events"]] == [
        (200, "completed"),
        (200, "completed"),
        (404, "failed"),
    ]
    for _ in range(100):
        shown = (await api("GET", f"/servers/{server['id']}")).json()["server"]["addresses"]["lan"]
        if len(shown) == 2:
            break
        await asyncio.sleep(0.02)
    assert [(entry["addr"], entry["OS-EXT-IPS:type"]) for entry in shown] == [
        (address, "fixed"),
        (floating["floating_ip_address"], "floating"),
    ]


async def test_its_interfaces_and_security_groups_are_told(api: Client, network: FakeNetworking) -> None:
    server = await booted(api, [{"uuid": network.add_network(project_id=PROJECT)["id"], "tag": "red"}])
    (port,) = network.ports_of(server["id"])
    path = f"/servers/{server['id']}/os-interface"
    expected = {
        "net_id": port["network_id"],
        "port_id": port["id"],
        "mac_addr": port["mac_address"],
        "port_state": "ACTIVE",
        "fixed_ips": port["fixed_ips"],
    }
    listed = await api("GET", path, token="member", version="2.69")
    assert listed.json() == {"interfaceAttachments": [expected]}
    shown = await api("GET", f"{path}/{port['id']}", token="member", version="2.70")
    assert shown.json() == {"interfaceAttachment": expected | {"tag": "red"}}
    unknown = await api("GET", f"{path}/{IMAGE}", token="member")
    assert (unknown.status_code, IMAGE in unknown.text) == (404, True)
    groups = await api("GET", f"/servers/{server['id']}/os-security-groups", token="member")
    assert [group["name"] for group in groups.json()["security_groups"]] == ["default"]
