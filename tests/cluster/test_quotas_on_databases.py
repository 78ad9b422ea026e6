"""What is counted stays exact whoever counts, makes and deletes at once, on several pools."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from kilonova.api.app import create_app
from kilonova.bus.memory import MemoryBus
from kilonova.compute import quota_usage, quotas
from kilonova.compute.quota_usage import Amount
from kilonova.db import quotas as rows
from kilonova.db import servers
from kilonova.db.engine import Database, Tx
from kilonova.db.quotas import Usage
from kilonova.db.schema import create_all
from kilonova.db.tables import instances
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.testing.identity import PROJECT, StaticTokens
from kilonova.world import World
from tests.support import server_rows
from tests.support.databases import DatabaseServer

APIS = 3


@pytest.fixture
async def apis(database_server: DatabaseServer) -> AsyncIterator[list[Client]]:
    """Each with connections of its own, as processes have them."""
    url = database_server.new_database()
    images = StaticImages()
    images.add(server_rows.IMAGE)
    found = []
    async with contextlib.AsyncExitStack() as stack:
        for number in range(APIS):
            db = Database(url)
            stack.push_async_callback(db.close)
            if not number:
                await create_all(db)
            bus = MemoryBus()
            await bus.start()
            stack.push_async_callback(bus.close)
            rt = Runtime(world=World(), db=db, bus=bus, images=images, image_token=no_token, settings=ComputeSettings())
            transport = httpx.ASGITransport(app=create_app(rt, StaticTokens()), raise_app_exceptions=True)
            http = httpx.AsyncClient(transport=transport, base_url="http://compute.test:8774")
            found.append(Client(await stack.enter_async_context(http), rt))
        await server_rows.add_flavor(found[0].rt.db)
        yield found


async def limit(api: Client, query: str = "", /, **limits: int) -> None:
    answer = await api("PUT", f"/os-quota-sets/{PROJECT}{query}", {"quota_set": limits})
    assert answer.status_code == 200, answer.text


async def boot(api: Client, group: str | None = None, token: str = "member") -> tuple[int, str]:
    server = {"name": "vm", "imageRef": server_rows.IMAGE, "flavorRef": "1", "networks": "none"}
    body: dict[str, Any] = {"server": server}
    if group is not None:
        body["os:scheduler_hints"] = {"group": group}
    answer = await api("POST", "/servers", body, token=token, version="2.64")
    return answer.status_code, answer.json()["server"]["id"] if answer.status_code == 202 else ""


async def end(api: Client, uuid: str) -> None:
    """As the last step of a deletion does it."""

    async def work(tx: Tx) -> None:
        await quota_usage.give_back(tx, PROJECT, Amount(1, 1, 512))
        await servers.update(tx, uuid, deleted=instances.c.id)

    await api.rt.db.write(work)


async def usage(api: Client) -> tuple[Usage, Usage]:
    """What is kept, and what the servers add up to."""

    async def work(tx: Tx) -> tuple[Usage, Usage]:
        return await rows.usage(tx, PROJECT), await rows.sums(tx, PROJECT)

    return await api.rt.db.read(work)


async def test_counting_anew_beside_boots_and_deletions_finds_nothing_wrong(apis: list[Client]) -> None:
    await limit(apis[0], instances=40, cores=-1, ram=-1)
    done = asyncio.Event()
    recounts: list[bool] = []

    async def recount(api: Client) -> None:
        while not done.is_set():
            recounts.append(await quotas.recount(api.rt, PROJECT))

    async def live(api: Client) -> None:
        for _ in range(12):
            status, uuid = await boot(api)
            assert status in (202, 403)
            if status == 202:
                await end(api, uuid)

    counting = [asyncio.create_task(recount(api)) for api in apis]
    await asyncio.gather(*(live(api) for api in apis for _ in range(4)))
    done.set()
    await asyncio.gather(*counting)
    assert len(recounts) > 10
    assert not any(recounts), "a recount took a server in flight for an error"
    assert await usage(apis[0]) == (Usage(), Usage())


async def test_exactly_as_many_servers_as_the_project_and_the_user_may_have(apis: list[Client]) -> None:
    await limit(apis[0], instances=7)
    await limit(apis[0], "?user_id=member", instances=4)
    jobs = [boot(api, token=token) for api in apis for token in ("member", "manager") for _ in range(4)]
    answers = [status for status, _ in await asyncio.gather(*jobs)]
    assert (answers.count(202), answers.count(403)) == (7, len(jobs) - 7)
    (kept, real), of_member = (
        await usage(apis[0]),
        await apis[0].rt.db.read(functools.partial(rows.sums, project_id=PROJECT, user_id="member")),
    )
    assert kept == real == Usage(7, 7, 7 * 512)
    assert of_member.instances <= 4


async def test_exactly_as_many_groups_and_members_as_there_may_be(apis: list[Client]) -> None:
    await limit(apis[0], server_groups=3, server_group_members=5, instances=-1, cores=-1, ram=-1)
    body = {"server_group": {"name": "g", "policy": "affinity"}}
    made = await asyncio.gather(
        *(api("POST", "/os-server-groups", body, token="member", version="2.64") for api in apis for _ in range(4))
    )
    assert sorted(answer.status_code for answer in made) == [200] * 3 + [403] * 9
    group = next(answer.json()["server_group"]["id"] for answer in made if answer.status_code == 200)
    answers = [status for status, _ in await asyncio.gather(*(boot(api, group) for api in apis for _ in range(5)))]
    assert (answers.count(202), answers.count(403)) == (5, 10)
    shown = (await apis[0]("GET", f"/os-server-groups/{group}", token="member")).json()["server_group"]
    assert len(shown["members"]) == 5


async def test_a_group_that_is_deleted_under_boots_has_no_members_left_behind(apis: list[Client]) -> None:
    await limit(apis[0], server_group_members=-1, instances=-1, cores=-1, ram=-1)
    body = {"server_group": {"name": "g", "policy": "affinity"}}
    made = await apis[0]("POST", "/os-server-groups", body, token="member", version="2.64")
    group = made.json()["server_group"]["id"]
    path = f"/os-server-groups/{group}"
    boots = [boot(api, group) for api in apis for _ in range(5)]
    *answers, deleted = await asyncio.gather(*boots, apis[1]("DELETE", path, token="member"))
    assert deleted.status_code == 204
    for status, uuid in answers:
        assert status in (202, 400)
        if uuid:
            shown = (await apis[2]("GET", f"/servers/{uuid}", version="2.71")).json()["server"]
            assert shown["server_groups"] == []


async def test_a_host_that_many_want_ends_in_one_zone(apis: list[Client]) -> None:
    await server_rows.add_service(apis[0].rt.db)
    await server_rows.add_node(apis[0].rt.db)
    paths = []
    for number in range(9):
        body = {"aggregate": {"name": f"a{number}", "availability_zone": f"zone-{number}"}}
        made = (await apis[0]("POST", "/os-aggregates", body)).json()["aggregate"]
        paths.append(f"/os-aggregates/{made['id']}/action")
    add = {"add_host": {"host": "host-1"}}
    jobs = [apis[number % APIS]("POST", path, add) for number, path in enumerate(paths)]
    answers = [answer.status_code for answer in await asyncio.gather(*jobs)]
    assert sorted(answers) == [200] + [409] * 8
    (service,) = (await apis[0]("GET", "/os-services?binary=nova-compute")).json()["services"]
    assert service["zone"] == f"zone-{answers.index(200)}"


async def test_of_many_at_once_as_many_are_made_as_fit_or_none(apis: list[Client]) -> None:
    """Whoever asks for two to five gets at least two, and together they get all that there is."""
    await limit(apis[0], instances=23, cores=-1, ram=-1)

    async def several(api: Client) -> int:
        server = {"name": "vm", "imageRef": server_rows.IMAGE, "flavorRef": "1", "networks": "none"}
        server |= {"min_count": "2", "max_count": "5", "return_reservation_id": "True"}
        answer = await api("POST", "/servers", {"server": server}, token="member", version="2.64")
        if answer.status_code == 403:
            return 0
        assert answer.status_code == 202, answer.text
        path = f"/servers?reservation_id={answer.json()['reservation_id']}&sort_key=launch_index&sort_dir=asc"
        made = (await api("GET", path, token="member")).json()["servers"]
        assert [one["name"] for one in made] == [f"vm-{number}" for number in range(1, len(made) + 1)]
        return len(made)

    counts = sorted(await asyncio.gather(*(several(api) for api in apis for _ in range(5))), reverse=True)
    # Four get all that they wanted, one the rest.
    assert counts == [5, 5, 5, 5, 3] + [0] * 10
    assert (await usage(apis[0]))[0].instances == 23
    assert len(set(await usage(apis[0]))) == 1
