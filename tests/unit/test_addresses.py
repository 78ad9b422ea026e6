"""Actions on a server's addresses and security groups; what they do shows in the server at once."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from kilonova.networking import Document
from kilonova.testing.api import Client
from kilonova.testing.identity import OTHER_PROJECT, PROJECT
from kilonova.testing.network import FakeNetworking
from tests.support.port_servers import IMAGE, booted


async def act(api: Client, server: dict[str, Any], version: str = "2.43", **action: Any) -> httpx.Response:
    return await api("POST", f"/servers/{server['id']}/action", action, token="member", version=version)


async def shown(api: Client, server: dict[str, Any]) -> list[tuple[str, str]]:
    addresses = (await api("GET", f"/servers/{server['id']}")).json()["server"]["addresses"]
    return [(entry["addr"], entry["OS-EXT-IPS:type"]) for entries in addresses.values() for entry in entries]


async def floating_ip(network: FakeNetworking, project: str = PROJECT) -> Document:
    known = [net for net in network.collections["networks"].values() if net["router:external"]]
    public = (
        known[0]
        if known
        else network.add_network("public", project_id=OTHER_PROJECT, cidrs=("203.0.113.0/24",), external=True)
    )
    (made,) = await network.create("floatingips", [{"floating_network_id": public["id"], "project_id": project}])
    return made


async def test_a_fixed_ip_is_added_and_removed(api: Client, network: FakeNetworking) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    server = await booted(api)
    ((first, _),) = await shown(api, server)
    assert (await act(api, server, addFixedIp={"networkId": net["id"]})).status_code == 202
    addresses = [address for address, _ in await shown(api, server)]
    (added,) = set(addresses) - {first}
    assert (await act(api, server, removeFixedIp={"address": added})).status_code == 202
    assert await shown(api, server) == [(first, "fixed")]
    refused = await act(api, server, removeFixedIp={"address": "192.0.2.9"})
    assert (refused.status_code, "192.0.2.9" in refused.text) == (400, True)
    assert (await act(api, server, addFixedIp={"networkId": IMAGE})).status_code == 404
    assert (await act(api, server, "2.44", addFixedIp={"networkId": net["id"]})).status_code == 404


async def test_a_full_network_gives_no_more_fixed_ips(api: Client, network: FakeNetworking) -> None:
    net = network.add_network("lan", project_id=PROJECT, cidrs=("10.0.0.0/30",))
    server = await booted(api, "none")
    (own,) = await network.create(
        "ports", [{"network_id": net["id"], "project_id": PROJECT, "fixed_ips": [{"ip_address": "10.0.0.2"}]}]
    )
    body = {"interfaceAttachment": {"port_id": own["id"]}}
    assert (await api("POST", f"/servers/{server['id']}/os-interface", body)).status_code == 200
    refused = await act(api, server, addFixedIp={"networkId": net["id"]})
    assert (refused.status_code, "No more IP addresses" in refused.text) == (400, True)


async def test_security_groups_are_added_to_all_ports_and_removed(api: Client, network: FakeNetworking) -> None:
    net = network.add_network("lan", project_id=PROJECT)
    group = network.add_group("web", project_id=PROJECT)
    server = await booted(api, [{"uuid": net["id"]}, {"uuid": net["id"]}])
    for _ in range(2):
        assert (await act(api, server, "2.90", addSecurityGroup={"name": "web"})).status_code == 202
        assert [group["id"] in port["security_groups"] for port in network.ports_of(server["id"])] == [True, True]
        assert [len(port["security_groups"]) for port in network.ports_of(server["id"])] == [2, 2]
    server = (await api("GET", f"/servers/{server['id']}")).json()["server"]
    assert server["security_groups"] == [{"name": "default"}, {"name": "web"}]
    assert (await act(api, server, "2.90", removeSecurityGroup={"name": group["id"]})).status_code == 202
    server = (await api("GET", f"/servers/{server['id']}")).json()["server"]
    assert server["security_groups"] == [{"name": "default"}]
    assert (await act(api, server, "2.90", removeSecurityGroup={"name": "web"})).status_code == 404
    assert (await act(api, server, "2.90", addSecurityGroup={"name": "nope"})).status_code == 404
    assert (await act(api, server, "2.90", addSecurityGroup={"name": " "})).status_code == 400
    network.add_group("web", project_id=PROJECT)
    assert (await act(api, server, "2.90", addSecurityGroup={"name": "web"})).status_code == 409


async def test_groups_need_ports_that_can_have_them(api: Client, network: FakeNetworking) -> None:
    network.add_network("open", project_id=PROJECT, port_security_enabled=False)
    network.add_group("web", project_id=PROJECT)
    assert (await act(api, await booted(api, "none"), addSecurityGroup={"name": "web"})).status_code == 404
    refused = await act(api, await booted(api, "auto"), addSecurityGroup={"name": "web"})
    assert (refused.status_code, "port_security_enabled" in refused.text) == (400, True)


async def test_a_floating_ip_comes_goes_and_moves(api: Client, network: FakeNetworking) -> None:
    network.add_network("lan", project_id=PROJECT)
    floating = await floating_ip(network)
    address = floating["floating_ip_address"]
    one, two = await booted(api), await booted(api)
    assert (await act(api, one, addFloatingIp={"address": address})).status_code == 202
    ((fixed, _), (leading, kind)) = await shown(api, one)
    assert (leading, kind) == (address, "floating")
    assert (await act(api, two, removeFloatingIp={"address": address})).status_code == 409
    answer = await act(api, two, addFloatingIp={"address": address})
    assert answer.status_code == 202, answer.text
    assert (address, "floating") in await shown(api, two)
    assert (await act(api, two, removeFloatingIp={"address": address})).status_code == 202
    assert len(await shown(api, two)) == 1
    assert (await act(api, one, addFloatingIp={"address": address, "fixed_address": fixed})).status_code == 202
    assert (address, "floating") in await shown(api, one)
    assert (await act(api, one, "2.44", removeFloatingIp={"address": address})).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"address": "198.51.100.1"}, 404, "floating IP not found"),
        ({"address": "{others}"}, 404, "floating IP not found"),
        ({"address": "{own}", "fixed_address": "10.9.9.9"}, 400, "Specified fixed address not assigned"),
        ({"address": "{second}"}, 400, "Unable to associate floating IP"),
        ({"address": "nonsense"}, 400, "address"),
    ],
)
async def test_floating_ips_that_cannot_lead_here_are_refused(
    api: Client, network: FakeNetworking, asked: dict[str, str], status: int, message: str
) -> None:
    network.add_network("lan", project_id=PROJECT)
    own, second, others = (
        await floating_ip(network),
        await floating_ip(network),
        await floating_ip(network, OTHER_PROJECT),
    )
    server = await booted(api)
    assert (await act(api, server, addFloatingIp={"address": own["floating_ip_address"]})).status_code == 202
    names = {name: ip["floating_ip_address"] for name, ip in (("own", own), ("second", second), ("others", others))}
    filled = {key: value.format(**names) for key, value in asked.items()}
    answer = await act(api, server, addFloatingIp=filled)
    assert (answer.status_code, message in answer.text) == (status, True), answer.text


async def test_a_server_without_ports_has_nothing_to_lead_to(api: Client, network: FakeNetworking) -> None:
    floating = await floating_ip(network)
    answer = await act(api, await booted(api, "none"), addFloatingIp={"address": floating["floating_ip_address"]})
    assert (answer.status_code, "not ready" in answer.text) == (400, True)
