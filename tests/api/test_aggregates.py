"""Aggregates over HTTP: what they are, the zones they make, and what would move a server between zones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kilonova.testing.api import Client
from tests.support import server_rows

VERSION = "2.104"


async def call(api: Client, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
    answer = await api(method, path, body, version=VERSION)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def make(api: Client, name: str, zone: str | None = None) -> int:
    body = {"aggregate": {"name": name, "availability_zone": zone}}
    return int((await call(api, "POST", "/os-aggregates", body))["aggregate"]["id"])


async def act(api: Client, aggregate: int, key: str, content: Any, *, status: int = 200) -> Any:
    return await call(api, "POST", f"/os-aggregates/{aggregate}/action", {key: content}, status=status)


async def host(api: Client, aggregate: int, name: str = "host-1", *, remove: bool = False, status: int = 200) -> Any:
    return await act(api, aggregate, "remove_host" if remove else "add_host", {"host": name}, status=status)


async def zones(api: Client) -> dict[str, str]:
    """By host, as services show them."""
    services = (await call(api, "GET", "/os-services?binary=nova-compute"))["services"]
    return {service["host"]: service["zone"] for service in services}


@pytest.fixture
async def hosts(api: Client) -> None:
    for name in ("host-1", "host-2"):
        await server_rows.add_service(api.rt.db, name)
        await server_rows.add_node(api.rt.db, name)


@pytest.mark.usefixtures("hosts")
async def test_hosts_are_in_the_zone_of_their_aggregate(api: Client) -> None:
    red, plain = await make(api, "red", "red"), await make(api, "plain")
    shown = await host(api, red)
    assert (shown["aggregate"]["hosts"], shown["aggregate"]["metadata"]) == (["host-1"], {"availability_zone": "red"})
    await host(api, plain)
    await host(api, plain, "host-2")
    assert await zones(api) == {"host-1": "red", "host-2": "nova"}
    await act(api, red, "set_metadata", {"metadata": {"availability_zone": "green"}})
    assert await zones(api) == {"host-1": "green", "host-2": "nova"}
    await host(api, red, remove=True)
    assert await zones(api) == {"host-1": "nova", "host-2": "nova"}


@pytest.mark.usefixtures("hosts")
async def test_a_host_is_in_one_zone(api: Client) -> None:
    red, blue, plain = await make(api, "red", "red"), await make(api, "blue", "blue"), await make(api, "plain")
    await host(api, red)
    await host(api, blue, status=409)
    await host(api, plain)
    await act(api, plain, "set_metadata", {"metadata": {"availability_zone": "blue"}}, status=400)
    await act(api, plain, "set_metadata", {"metadata": {"availability_zone": "red"}})
    # Two aggregates make it red: one may go.
    await host(api, red, remove=True)
    assert (await zones(api))["host-1"] == "red"


@pytest.mark.usefixtures("hosts")
async def test_two_zones_at_once_leave_a_host_in_one(api: Client) -> None:
    made = [await make(api, f"a{number}", f"zone-{number}") for number in range(6)]
    answers = await asyncio.gather(
        *(api("POST", f"/os-aggregates/{one}/action", {"add_host": {"host": "host-1"}}) for one in made)
    )
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 5]


@pytest.mark.usefixtures("hosts")
async def test_servers_are_not_moved_to_another_zone_by_a_change_of_aggregates(api: Client) -> None:
    red, plain = await make(api, "red", "red"), await make(api, "plain")
    await host(api, red)
    server = await server_rows.add(api.rt.db, host="host-1")
    await server_rows.add(api.rt.db, host="host-2")
    await host(api, red, remove=True, status=409)
    await host(api, red, "host-2", status=409)
    await host(api, plain, "host-2")
    await call(api, "PUT", f"/os-aggregates/{red}", {"aggregate": {"availability_zone": "green"}}, status=400)
    await call(api, "PUT", f"/os-aggregates/{red}", {"aggregate": {"availability_zone": "red", "name": "crimson"}})
    assert (await zones(api))["host-1"] == "red"
    await server_rows.delete(api.rt.db, server)
    await host(api, red, remove=True)


@pytest.mark.usefixtures("hosts")
async def test_a_zone_whose_hosts_are_all_disabled_takes_no_servers_but_forced_ones(api: Client) -> None:
    await server_rows.add_flavor(api.rt.db)
    api.rt.images.add(server_rows.IMAGE)  # type: ignore[attr-defined] # StaticImages
    await host(api, await make(api, "red", "red"))
    services = (await call(api, "GET", "/os-services?binary=nova-compute"))["services"]
    one = next(service["id"] for service in services if service["host"] == "host-1")

    async def boot(zone: str, status: int) -> None:
        server = {"name": "vm", "imageRef": server_rows.IMAGE, "flavorRef": "1", "networks": "none"}
        await call(api, "POST", "/servers", {"server": server | {"availability_zone": zone}}, status=status)

    await boot("red", 202)
    await call(api, "PUT", f"/os-services/{one}", {"status": "disabled"})
    await boot("red", 400)
    await boot("red:host-1", 202)


async def test_a_change_that_is_refused_changes_nothing(api: Client) -> None:
    await make(api, "taken")
    one = await make(api, "one", "red")
    before = await server_rows.contents(api.rt.db)
    for fields in (
        {"name": "other", "availability_zone": None},
        {"name": "taken", "availability_zone": "blue"},
        {"name": "taken"},
        {},
    ):
        answer = await api("PUT", f"/os-aggregates/{one}", {"aggregate": fields})
        assert answer.status_code in (400, 409), fields
    assert await server_rows.contents(api.rt.db) == before


@pytest.mark.usefixtures("hosts")
async def test_an_aggregate_with_hosts_stays(api: Client) -> None:
    one = await make(api, "one")
    await host(api, one)
    await call(api, "DELETE", f"/os-aggregates/{one}", status=400)
    await host(api, one, remove=True)
    await call(api, "DELETE", f"/os-aggregates/{one}")
    await call(api, "GET", f"/os-aggregates/{one}", status=404)


@pytest.mark.usefixtures("hosts")
async def test_a_service_that_is_deleted_leaves_its_aggregates(api: Client) -> None:
    red = await make(api, "red", "red")
    await host(api, red)
    services = (await call(api, "GET", "/os-services?host=host-1"))["services"]
    await call(api, "DELETE", f"/os-services/{services[0]['id']}", status=204)
    assert (await call(api, "GET", f"/os-aggregates/{red}"))["aggregate"]["hosts"] == []


@pytest.mark.usefixtures("hosts")
async def test_lists_cost_the_same_statements_at_any_length(api: Client) -> None:
    costs = []
    for number in range(4):
        one = await make(api, f"a{number}", "red")
        await host(api, one)
        before = api.rt.db.statements
        assert len((await call(api, "GET", "/os-aggregates"))["aggregates"]) == number + 1
        costs.append(api.rt.db.statements - before)
    assert costs == [3, 3, 3, 3]


async def test_images_to_be_cached_must_be_there(api: Client) -> None:
    one = await make(api, "one")
    body = {"cache": [{"id": server_rows.IMAGE}]}
    await call(api, "POST", f"/os-aggregates/{one}/images", body, status=400)
    api.rt.images.add(server_rows.IMAGE)  # type: ignore[attr-defined] # StaticImages
    await call(api, "POST", f"/os-aggregates/{one}/images", body, status=202)
    await call(api, "POST", f"/os-aggregates/{one}/images", {"cache": body["cache"] * 2}, status=400)
    assert (await api("POST", f"/os-aggregates/{one}/images", body, version="2.80")).status_code == 404
