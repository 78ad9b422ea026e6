"""What is counted stays exact, with 2 API, 2 conductor, 2 scheduler and 4 compute processes and 32 clients at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.cluster import Cluster, make_cluster
from tests.support.databases import DatabaseServer
from tests.support.load import Load, exceed_quota, overfill, ready, server
from tests.support.rabbit import Broker

pytestmark = pytest.mark.timeout(600)

HOSTS = 5
"""Of each compute process: 20 in all."""
VCPUS = 4
"""Of each host: 80 servers find room."""
OPTIONS = {
    "DEFAULT": {"initial_cpu_allocation_ratio": 1.0},
    "sim": {"vcpus": VCPUS},
    "quota": {"server_group_members": -1},
}


@pytest.fixture(scope="module")
def cluster(database_server: DatabaseServer, broker: Broker) -> Iterator[Cluster]:
    with make_cluster(database_server, broker, hosts=HOSTS, options=OPTIONS) as made:
        yield made


@pytest.fixture
async def load(cluster: Cluster) -> AsyncIterator[Load]:
    async with ready(cluster) as made:
        yield made
        await made.clear()


async def test_more_demand_than_capacity_fills_it_exactly_and_every_refusal_is_true(
    cluster: Cluster, load: Load
) -> None:
    found = await overfill(load, hosts=4 * HOSTS, vcpus=VCPUS, demand=120)
    faults = {each["fault"]["message"].split(".")[0] for each in found if each["status"] == "ERROR"}
    assert faults == {"No valid host was found"}
    # A claim that was committed after somebody had been refused would have had room for him.
    ((late,),) = cluster.query(
        "SELECT COUNT(*) FROM instance_actions_events claimed WHERE claimed.name = 'schedule' AND claimed.phase = 'do'"
        " AND claimed.result = 'Success' AND claimed.finished_at > (SELECT MIN(refused.finished_at)"
        " FROM instance_actions_events refused WHERE refused.name = 'schedule' AND refused.result = 'Error')"
    )
    assert late == "0"


async def test_room_that_was_just_given_back_is_nobodys_refusal(load: Load) -> None:
    capacity, some = 4 * HOSTS * VCPUS, 8
    await load.flavor("huge", vcpus=VCPUS + 1)
    await load.create(capacity)
    await load.settled(capacity)
    done = asyncio.Event()

    async def ask_in_vain() -> None:
        # So that each scheduler's picture is one of a moment ago: young enough to be believed.
        while not done.is_set():
            await load.ask("POST", "/servers", server("huge", "huge"))
            await asyncio.sleep(0.1)

    asking = asyncio.ensure_future(ask_in_vain())
    try:
        for _ in range(4):
            going = (await load.servers("&name=^s"))[:some]
            await load.together([("DELETE", f"/servers/{each['id']}", None) for each in going])
            while len(await load.servers("&name=^s")) > capacity - some:
                await asyncio.sleep(0.05)
            await load.create(some)
            found = await load.settled(capacity, "&name=^s")
            assert Counter(each["status"] for each in found) == {"ACTIVE": capacity}
    finally:
        done.set()
        await asking


async def test_a_quota_of_n_admits_n_of_4n(load: Load) -> None:
    found = await exceed_quota(load, 15)
    assert {each["status"] for each in found} == {"ACTIVE"}


async def test_of_many_at_once_as_many_are_made_as_fit(load: Load) -> None:
    """Five who ask for two to five each, and room for 23: the last gets the three that are left."""
    limit = 23
    async with load.quota(limit):
        # Only who comes last meets the limit, and only beside another one could he be told too much.
        for _ in range(4):
            body = server("s", min_count=2, max_count=5, return_reservation_id=True)
            answers = await load.together([("POST", "/servers", body)] * 5)
            assert {answer.status_code for answer in answers} == {202}
            found = await load.settled(limit)
            assert {each["status"] for each in found} == {"ACTIVE"}
            made = {answer.json()["reservation_id"] for answer in answers}
            counts = [len(await load.servers(f"&reservation_id={reservation}")) for reservation in made]
            assert sorted(counts) == [3, 5, 5, 5, 5]
            await load.clear()


async def test_a_burst_spreads_over_equal_hosts(load: Load) -> None:
    # So few that a host could take more than twice its share.
    count = 4 * HOSTS
    await load.create(count)
    found = await load.settled(count)
    assert {each["status"] for each in found} == {"ACTIVE"}
    hosts = Counter(each["OS-EXT-SRV-ATTR:host"] for each in found)
    share = count / (4 * HOSTS)
    assert max(hosts.values()) <= 2 * share


async def test_strict_anti_affinity_uses_each_host_once(load: Load) -> None:
    hosts = 4 * HOSTS
    group = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    made = (await load.ask("POST", "/os-server-groups", group)).json()["server_group"]["id"]
    bodies = [server(f"s{n}", hints={"group": made}) for n in range(2 * hosts)]
    answers = await load.together([("POST", "/servers", body) for body in bodies])
    assert {answer.status_code for answer in answers} == {202}
    found = await load.settled(2 * hosts)
    active = [each for each in found if each["status"] == "ACTIVE"]
    assert len(active) == len({each["OS-EXT-SRV-ATTR:host"] for each in active}) == hosts


async def test_affinity_stays_on_one_host_and_takes_as_many_as_fit(load: Load) -> None:
    group = {"server_group": {"name": "together", "policy": "affinity"}}
    made = (await load.ask("POST", "/os-server-groups", group)).json()["server_group"]["id"]
    bodies = [server(f"s{n}", hints={"group": made}) for n in range(3 * VCPUS)]
    await load.together([("POST", "/servers", body) for body in bodies])
    found = await load.settled(3 * VCPUS)
    active = [each for each in found if each["status"] == "ACTIVE"]
    assert len(active) == VCPUS
    assert len({each["OS-EXT-SRV-ATTR:host"] for each in active}) == 1
