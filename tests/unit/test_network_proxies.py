"""The old interfaces to Networking: what they show, whose it is, and from when on they are gone."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from kilonova.compute.network_proxies import rule_of
from kilonova.errors import Invalid
from kilonova.testing.api import Client
from kilonova.testing.identity import OTHER_PROJECT, PROJECT
from kilonova.testing.network import FakeNetworking
from tests.support.port_servers import IMAGE, booted, gone


async def ask(api: Client, method: str, path: str, body: Any = None, version: str = "2.35") -> httpx.Response:
    return await api(method, path, body, token="member", version=version)


async def test_networks_are_the_projects_own_shared_and_external_ones(api: Client, network: FakeNetworking) -> None:
    own = network.add_network("own", project_id=PROJECT)
    others = network.add_network("others", project_id=OTHER_PROJECT)
    network.add_network("shared", project_id=OTHER_PROJECT, shared=True)
    network.add_network("public", project_id=OTHER_PROJECT, external=True)
    granted = network.add_network("granted", project_id=OTHER_PROJECT)
    policy = {
        "object_type": "network", "object_id": granted["id"], "action": "access_as_shared", "target_tenant": PROJECT,
    }  # fmt: skip
    await network.create("rbac-policies", [policy])
    for path in ("/os-networks", "/os-tenant-networks"):
        listed = (await ask(api, "GET", path)).json()["networks"]
        assert {item["label"] for item in listed} == {"own", "shared", "public", "granted"}
        assert (await ask(api, "GET", f"{path}/{granted['id']}")).json()["network"]["label"] == "granted"
        assert (await ask(api, "GET", f"{path}/{others['id']}")).status_code == 404
        assert (await ask(api, "GET", path, version="2.36")).status_code == 404
    assert len((await api("GET", "/os-networks", version="2.35")).json()["networks"]) == 5
    shown = (await ask(api, "GET", f"/os-tenant-networks/{own['id']}")).json()
    assert shown == {"network": {"id": own["id"], "cidr": "None", "label": "own"}}
    assert (await ask(api, "GET", "/os-floating-ip-pools")).json() == {"floating_ip_pools": [{"name": "public"}]}


async def test_a_floating_ip_is_allocated_shown_and_released(api: Client, network: FakeNetworking) -> None:
    network.add_network("lan", project_id=PROJECT)
    public = network.add_network("public", project_id=OTHER_PROJECT, cidrs=("203.0.113.0/24",), external=True)
    assert (await ask(api, "POST", "/os-floating-ips", {})).status_code == 404
    made = (await ask(api, "POST", "/os-floating-ips", {"pool": "public"})).json()["floating_ip"]
    assert made == {"fixed_ip": None, "id": made["id"], "instance_id": None, "ip": made["ip"], "pool": "public"}
    server = await booted(api)
    await ask(api, "POST", f"/servers/{server['id']}/action", {"addFloatingIp": {"address": made["ip"]}})
    (shown,) = (await ask(api, "GET", "/os-floating-ips")).json()["floating_ips"]
    (port,) = network.ports_of(server["id"])
    assert (shown["instance_id"], shown["fixed_ip"]) == (server["id"], port["fixed_ips"][0]["ip_address"])
    foreign = {"floating_network_id": public["id"], "project_id": OTHER_PROJECT}
    (others,) = await network.create("floatingips", [foreign])
    for method in ("GET", "DELETE"):
        assert (await ask(api, method, f"/os-floating-ips/{others['id']}")).status_code == 404
    assert (await ask(api, "DELETE", f"/os-floating-ips/{made['id']}")).status_code == 202
    assert (await ask(api, "GET", f"/os-floating-ips/{made['id']}")).status_code == 404
    addresses = (await api("GET", f"/servers/{server['id']}")).json()["server"]["addresses"]
    assert [entry["OS-EXT-IPS:type"] for entry in addresses["lan"]] == ["fixed"]


async def test_security_groups_and_rules_live_their_life(api: Client, network: FakeNetworking) -> None:
    network.add_network("lan", project_id=PROJECT)
    body = {"security_group": {"name": "web", "description": "Web"}}
    made = (await ask(api, "POST", "/os-security-groups", body)).json()["security_group"]
    assert made == {"id": made["id"], "name": "web", "description": "Web", "tenant_id": PROJECT, "rules": []}
    path = f"/os-security-groups/{made['id']}"
    asked = {
        "parent_group_id": made["id"],
        "ip_protocol": "tcp",
        "from_port": "80",
        "to_port": 81,
        "cidr": "10.0.0.0/8",
    }
    answer = await ask(api, "POST", "/os-security-group-rules", {"security_group_rule": asked})
    rule = answer.json()["security_group_rule"]
    assert rule == {
        "id": rule["id"],
        "parent_group_id": made["id"],
        "ip_protocol": "tcp",
        "from_port": 80,
        "to_port": 81,
        "group": {},
        "ip_range": {"cidr": "10.0.0.0/8"},
    }
    again = await ask(api, "POST", "/os-security-group-rules", {"security_group_rule": asked})
    assert (again.status_code, "already exists" in again.text) == (400, True)
    of_group = {"security_group_rule": {"parent_group_id": made["id"], "group_id": made["id"], "ip_protocol": "udp"}}
    sourced = (await ask(api, "POST", "/os-security-group-rules", of_group)).json()["security_group_rule"]
    assert (sourced["group"], sourced["ip_range"]) == ({"name": "web", "tenant_id": PROJECT}, {})
    assert (sourced["from_port"], sourced["to_port"]) == (1, 65535)
    assert (await ask(api, "GET", path)).json()["security_group"]["rules"] == [rule, sourced]
    assert (await ask(api, "DELETE", f"/os-security-group-rules/{rule['id']}")).status_code == 202
    assert (await ask(api, "DELETE", f"/os-security-group-rules/{rule['id']}")).status_code == 404
    renamed = {"security_group": {"name": "www", "description": "W"}}
    assert (await ask(api, "PUT", path, renamed)).json()["security_group"]["name"] == "www"
    listed = (await ask(api, "GET", "/os-security-groups")).json()["security_groups"]
    assert [group["name"] for group in listed] == ["default", "www"]
    assert len((await ask(api, "GET", "/os-security-groups?limit=1&offset=1")).json()["security_groups"]) == 1
    server = await booted(api, "auto", security_groups=[{"name": "www"}])
    assert (await ask(api, "DELETE", path)).status_code == 400
    await gone(api, server["id"])
    assert (await ask(api, "DELETE", path)).status_code == 202
    assert (await ask(api, "GET", path)).status_code == 404
    assert (await ask(api, "GET", "/os-security-groups/nonsense")).status_code == 400
    assert (await ask(api, "GET", "/os-security-groups", version="2.36")).status_code == 404


async def test_other_projects_groups_are_nobodys_business(api: Client, network: FakeNetworking) -> None:
    group = network.add_group("theirs", project_id=OTHER_PROJECT)
    body = {"security_group": {"name": "x", "description": ""}}
    assert (await ask(api, "GET", f"/os-security-groups/{group['id']}")).status_code == 404
    assert (await ask(api, "PUT", f"/os-security-groups/{group['id']}", body)).status_code == 404
    assert (await ask(api, "DELETE", f"/os-security-groups/{group['id']}")).status_code == 404
    rule = {"security_group_rule": {"parent_group_id": group["id"], "ip_protocol": "tcp", "from_port": 1, "to_port": 2}}
    assert (await ask(api, "POST", "/os-security-group-rules", rule)).status_code == 404
    assert (await ask(api, "GET", "/os-security-groups?all_tenants=1")).json() == {"security_groups": []}
    listed = (await api("GET", "/os-security-groups?all_tenants=1", version="2.35")).json()["security_groups"]
    assert [entry["name"] for entry in listed] == ["theirs"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ip_protocol": "tcp"}, "Not enough parameters"),
        ({"ip_protocol": "tcp", "from_port": 5, "to_port": 4}, "Former value cannot be greater"),
        ({"ip_protocol": "tcp", "from_port": 0, "to_port": 4}, "between 1-65535"),
        ({"ip_protocol": "udp", "from_port": 1, "to_port": 65536}, "Valid UDP ports"),
        ({"ip_protocol": "icmp", "from_port": 256, "to_port": 1}, "type:code"),
        ({"ip_protocol": "icmp", "from_port": "x", "to_port": 1}, "Type and Code must be integers"),
        ({"ip_protocol": "tcp", "from_port": "x", "to_port": 1}, "ports must be integers"),
        ({"ip_protocol": "gre", "from_port": 1, "to_port": 1}, "Invalid IP protocol gre"),
        ({"ip_protocol": "tcp", "from_port": 1, "to_port": 1, "cidr": "10.0.0.1"}, "Invalid cidr"),
        ({"ip_protocol": "tcp", "from_port": 1, "to_port": 1, "cidr": "10.0.0.0/33"}, "Invalid cidr"),
    ],
)
def test_rules_that_make_no_sense_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        rule_of({"parent_group_id": IMAGE, **asked})


def test_a_rule_is_told_to_networking_in_its_own_words() -> None:
    asked = {"parent_group_id": "g", "ip_protocol": "icmp", "from_port": -1, "to_port": -1, "cidr": "2001:db8::/32"}
    assert rule_of(asked) == {
        "security_group_id": "g",
        "direction": "ingress",
        "ethertype": "IPv6",
        "protocol": "icmp",
        "port_range_min": None,
        "port_range_max": None,
        "remote_ip_prefix": "2001:db8::/32",
        "remote_group_id": None,
    }
    everything = rule_of({"parent_group_id": "g", "group_id": "s"})
    assert (everything["protocol"], everything["remote_group_id"], everything["remote_ip_prefix"]) == (None, "s", None)
