"""Server groups over HTTP: whose they are, who is in them, and how many of both there may be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kilonova.testing.api import Client
from kilonova.testing.identity import PROJECT
from tests.support import server_rows


async def make(api: Client, name: str = "g", *, token: str = "member", status: int = 200, **fields: Any) -> Any:
    body = {"server_group": {"name": name, "policy": "anti-affinity"} | fields}
    answer = await api("POST", "/os-server-groups", body, token=token, version="2.64")
    assert answer.status_code == status, answer.text
    return answer.json().get("server_group", {}).get("id")


async def limit(api: Client, **limits: int) -> None:
    answer = await api("PUT", f"/os-quota-sets/{PROJECT}", {"quota_set": limits})
    assert answer.status_code == 200, answer.text


async def boot(api: Client, group: Any, *, token: str = "member", count: int = 1) -> Any:
    server = {"name": "vm", "imageRef": server_rows.IMAGE, "flavorRef": "1", "networks": "none"}
    counts = {"min_count": count, "max_count": count}
    body = {"server": server | counts, "os:scheduler_hints": {"group": group}}
    return await api("POST", "/servers", body, token=token, version="2.64")


@pytest.fixture
async def furnished(api: Client) -> None:
    await server_rows.add_flavor(api.rt.db)
    api.rt.images.add(server_rows.IMAGE)  # type: ignore[attr-defined] # StaticImages


@pytest.mark.parametrize(
    ("version", "policy", "status"),
    [
        ("2.1", "soft-affinity", 400),
        ("2.14", "soft-anti-affinity", 400),
        ("2.15", "soft-affinity", 200),
        ("2.63", "anti-affinity", 200),
        ("2.64", "anti-affinity", 400),
    ],
)
async def test_policies_come_with_versions(api: Client, version: str, policy: str, status: int) -> None:
    body = {"server_group": {"name": "g", "policies": [policy]}}
    assert (await api("POST", "/os-server-groups", body, version=version)).status_code == status


async def test_rules_are_of_anti_affinity_alone(api: Client) -> None:
    one = await make(api, rules={"max_server_per_host": "3"})
    shown = (await api("GET", f"/os-server-groups/{one}", version="2.64")).json()["server_group"]
    assert (shown["policy"], shown["rules"]) == ("anti-affinity", {"max_server_per_host": 3})
    await make(api, policy="affinity", rules={"max_server_per_host": 3}, status=400)


@pytest.mark.usefixtures("furnished")
async def test_a_rule_with_more_digits_than_any_cloud_has_servers_bounds_nothing(api: Client) -> None:
    group = await make(api, rules={"max_server_per_host": "9" * 6000})
    assert (await boot(api, group)).status_code == 202


async def test_groups_are_their_projects(api: Client) -> None:
    one = await make(api)
    for method in ("GET", "DELETE"):
        assert (await api(method, f"/os-server-groups/{one}", token="other")).status_code == 404
    assert (await api("DELETE", f"/os-server-groups/{one}", token="reader")).status_code == 403
    assert (await api("GET", "/os-server-groups?all_projects=1", token="other")).json() == {"server_groups": []}
    everybody = (await api("GET", "/os-server-groups?all_projects=1", token="other-admin")).json()["server_groups"]
    assert [group["id"] for group in everybody] == [one]


async def test_exactly_as_many_groups_as_the_quota_has(api: Client) -> None:
    await limit(api, server_groups=3)
    body = {"server_group": {"name": "g", "policies": ["affinity"]}}
    answers = await asyncio.gather(*(api("POST", "/os-server-groups", body, token="member") for _ in range(9)))
    assert sorted(answer.status_code for answer in answers) == [*[200] * 3, *[403] * 6]
    absolute = (await api("GET", "/limits", token="member")).json()["limits"]["absolute"]
    assert (absolute["maxServerGroups"], absolute["totalServerGroupsUsed"]) == (3, 3)


@pytest.mark.usefixtures("furnished")
async def test_a_server_is_a_member_until_it_or_the_group_is_gone(api: Client) -> None:
    one, two = await make(api), await make(api, "two")
    servers = [(await boot(api, one)).json()["server"]["id"] for _ in range(2)]
    other = (await boot(api, two)).json()["server"]["id"]
    shown = (await api("GET", f"/os-server-groups/{one}", token="member")).json()["server_group"]
    assert shown["members"] == servers
    seen = (await api("GET", f"/servers/{other}", version="2.71")).json()["server"]
    assert seen["server_groups"] == [two]
    await server_rows.delete(api.rt.db, servers[0])
    shown = (await api("GET", f"/os-server-groups/{one}", token="member")).json()["server_group"]
    assert shown["members"] == servers[1:]
    assert (await api("DELETE", f"/os-server-groups/{one}", token="member")).status_code == 204
    seen = (await api("GET", f"/servers/{servers[1]}", version="2.71")).json()["server"]
    assert seen["server_groups"] == []


@pytest.mark.usefixtures("furnished")
async def test_a_boot_into_no_group_of_ones_own_is_refused_and_leaves_nothing(api: Client) -> None:
    others = await make(api, token="other")
    before = await server_rows.contents(api.rt.db)
    for group in (others, "00000000-0000-4000-8000-000000000000", "name", ["x"]):
        assert (await boot(api, group)).status_code == 400
    assert await server_rows.contents(api.rt.db) == before


@pytest.mark.usefixtures("furnished")
async def test_exactly_as_many_members_as_the_quota_has(api: Client) -> None:
    await limit(api, server_group_members=4)
    one = await make(api)
    assert (await boot(api, one, count=5)).status_code == 403
    answers = await asyncio.gather(*(boot(api, one) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [*[202] * 4, *[403] * 4]


async def test_lists_cost_the_same_statements_at_any_length(api: Client) -> None:
    costs = []
    for number in range(3):
        one = await make(api, f"g{number}")
        await server_rows.add(api.rt.db, server_group=one)
        before = api.rt.db.statements
        listed = (await api("GET", "/os-server-groups", token="member")).json()["server_groups"]
        costs.append(api.rt.db.statements - before)
        assert len(listed[-1]["members"]) == 1
    assert costs == [2, 2, 2]
