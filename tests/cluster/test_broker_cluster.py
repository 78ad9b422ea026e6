"""RabbitMQ of several nodes: each one may die or hang, and no other part of the deployment does for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kilonova.bus.messages import Answer, Message, Wake
from kilonova.bus.rabbit import RabbitBus, RabbitOptions
from kilonova.bus.transport import parse_transport_url
from kilonova.doctor import broker as doctor
from kilonova.doctor.findings import Finding
from kilonova.doctor.site import of_files
from kilonova.errors import Transient, Unavailable
from tests.support.agents import Heard
from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import short
from tests.support.chaos.run import chaos
from tests.support.chaos.run import options as chaos_options
from tests.support.cluster import make_cluster
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker, make_brokers, transport_url

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("BROKER_NODES"), reason="of `make cluster`: minutes for nodes that go"),
]

TICK = 20
"""Seconds after which about a node that hangs counts as down. RabbitMQ has 60; a busy machine's nodes are no slower."""
COUNTS = {"api": 2, "conductor": 2, "scheduler": 2, "compute": 2}
Make = Callable[..., Awaitable[RabbitBus]]
_prefixes = (f"several{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def brokers() -> Iterator[list[Broker]]:
    with make_brokers(3, tick=TICK) as made:
        yield made


@pytest.fixture
async def make(brokers: list[Broker]) -> AsyncIterator[Make]:
    prefix = next(_prefixes)
    opened: list[RabbitBus] = []

    async def make(*order: int) -> RabbitBus:
        """A bus that tries the brokers in this order."""
        addresses, _ = parse_transport_url(transport_url([brokers[number] for number in order]))
        bus = RabbitBus(RabbitOptions(brokers=tuple(addresses), prefix=prefix, heartbeat=4))
        opened.append(bus)
        await bus.start()
        return bus

    yield make
    await asyncio.gather(*(bus.close() for bus in opened))


async def arrives(bus: RabbitBus, address: str, listeners: Sequence[Heard], number: int) -> None:
    """Send until each of the listeners has had one."""
    async with asyncio.timeout(180):
        while not all(any(wake.operation_id == number for wake in heard.of(Wake)) for heard in listeners):
            with contextlib.suppress(Transient):
                await bus.send(address, Wake(operation_id=number))
            await asyncio.sleep(0.1)


async def answers(bus: RabbitBus, address: str) -> dict[str, object]:
    async with asyncio.timeout(180):
        while True:
            with contextlib.suppress(Unavailable):
                return (await bus.ask(address, Wake(operation_id=0), 5.0)).data
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def without(broker: Broker, how: str) -> AsyncIterator[None]:
    """A broker that is dead, or hangs; it is back afterwards."""
    if how == "dies":
        await asyncio.to_thread(broker.kill)
    else:
        broker.hang()
    try:
        yield
    finally:
        if how == "dies":
            await asyncio.to_thread(broker.start)
        else:
            broker.go_on()


@pytest.mark.parametrize("how", ["dies", "hangs"])
async def test_a_queue_s_node_is_gone_and_everybody_who_was_at_others_is_heard_again(
    make: Make, brokers: list[Broker], how: str
) -> None:
    """A queue is where it was made first: listeners and senders at other nodes lose it with that node."""
    first, second, sender = await make(0, 1, 2), await make(1, 2, 0), await make(2, 1, 0)
    listeners = Heard(), Heard()
    for bus, heard in zip((first, second), listeners, strict=True):
        await bus.listen("conductor", heard)
    await arrives(sender, "conductor", listeners, 1)

    async def answer(message: Message) -> Answer:
        return Answer(data={"from": "first"})

    await first.listen("agent.h1", answer)
    assert await answers(sender, "agent.h1") == {"from": "first"}
    async with without(brokers[0], how):
        await arrives(sender, "conductor", listeners, 2)
        assert await answers(sender, "agent.h1") == {"from": "first"}
        assert await answers(second, "agent.h1") == {"from": "first"}
    await arrives(sender, "conductor", listeners, 3)
    assert await answers(sender, "agent.h1") == {"from": "first"}


def home_of(queue: str, brokers: Sequence[Broker]) -> Broker:
    """The node that it is at."""
    rows = brokers[-1].control("list_queues", "name", "pid").splitlines()
    (row,) = [row for row in rows if row.split()[:1] == [queue]]
    (found,) = [broker for broker in brokers if f"<{broker.name}." in row]
    return found


async def one_alone(bus: RabbitBus, address: str, listeners: Sequence[Heard], numbers: Iterator[int]) -> int:
    """Send until one of the listeners has had all of several, once each, and nobody else any; which one that is."""
    async with asyncio.timeout(180):
        while True:
            batch = list(itertools.islice(numbers, 10))
            with contextlib.suppress(Transient):
                for number in batch:
                    await bus.send(address, Wake(operation_id=number))
            await asyncio.sleep(1)
            came = [[wake.operation_id for wake in heard.of(Wake) if wake.operation_id in batch] for heard in listeners]
            if sorted(came) == [[], batch]:
                return came.index(batch)


@pytest.mark.parametrize("how", ["dies", "hangs"])
async def test_where_one_hears_everything_it_is_one_again_when_its_node_or_it_is_gone(
    make: Make, brokers: list[Broker], how: str
) -> None:
    """The address of the role `network`, of which two may run."""
    first, second, sender = await make(0, 1, 2), await make(1, 2, 0), await make(2, 1, 0)
    listeners, numbers = (Heard(), Heard()), itertools.count(1)
    for bus, heard in zip((first, second), listeners, strict=True):
        await bus.listen("network", heard)
    await one_alone(sender, "network", listeners, numbers)
    home = await asyncio.to_thread(home_of, sender.queue_name("network"), brokers)
    async with without(home, how):
        await one_alone(sender, "network", listeners, numbers)
    one = await one_alone(sender, "network", listeners, numbers)
    await (first, second)[one].close()
    assert await one_alone(sender, "network", listeners, numbers) == 1 - one


class Nodes(Faults):
    """The node that most connections are with goes and is back after a while; then likewise whichever has them now."""

    how = "dies"
    nodes: Sequence[Broker] = ()

    async def run(self) -> None:
        gone: list[Broker] = []
        for _ in range(2):
            await asyncio.sleep(self.plan.period)
            busiest = await asyncio.to_thread(self.busiest)
            assert busiest not in gone, "nobody has gone to another node"
            gone.append(busiest)
            self.report.injected[f"node {self.how}"] += 1
            async with without(busiest, self.how):
                await asyncio.sleep(self.plan.broker_away)

    def busiest(self) -> Broker:
        connections = self.nodes[-1].control("list_connections", "pid")
        return max(self.nodes, key=lambda broker: connections.count(f"<{broker.name}."))


PLAN = replace(short(1), servers=60, seconds=40, period=4, broker_away=TICK)


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_the_node_that_most_connections_are_with_is_gone_while_servers_are_made(
    mariadb: MariaDB, brokers: list[Broker], how: str
) -> None:
    """Two nodes of three, one after the other: nothing is refused, lost or doubled, and nothing ends in ERROR."""
    options = {
        **chaos_options(PLAN),
        "DEFAULT": chaos_options(PLAN)["DEFAULT"] | {"transport_url": transport_url(brokers)},
    }
    faults = type("These", (Nodes,), {"how": how, "nodes": brokers})
    with make_cluster(mariadb, brokers[0], counts=COUNTS, hosts=PLAN.hosts, options=options) as cluster:
        report = asyncio.run(chaos(cluster, PLAN, faults))
        print(report)
        assert not report.wrong, str(report)
        assert report.asked["create: 202"] == PLAN.servers
        assert {what for what in report.asked if what.startswith("create")} == {"create: 202"}, str(report)
        assert report.injected == {f"node {how}": 2}


async def test_doctor_says_which_nodes_answer_and_whether_they_are_one_cluster(
    brokers: list[Broker], broker: Broker, tmp_path: Path
) -> None:
    async def looked(*named: Broker) -> dict[str, list[Finding]]:
        config = tmp_path / "nova.conf"
        config.write_text(f"[DEFAULT]\ntransport_url = {transport_url(named)}\n")
        site, _ = of_files([config])
        assert site is not None
        found: dict[str, list[Finding]] = {}
        for each in await doctor.look(site):
            found.setdefault(each.check, []).append(each)
        return found

    found = await looked(*brokers)
    assert [each.result for each in found["broker"]] == ["ok"] * 3
    (cluster,) = found["broker: cluster"]
    assert cluster.result == "ok", cluster
    (strange,) = (await looked(*brokers, broker))["broker: cluster"]
    assert strange.result == "wrong"
    assert str(broker.port) in strange.text.partition("not known at")[2]
    async with without(brokers[1], "dies"):
        found = await looked(*brokers)
        assert [each.result for each in found["broker"]] == ["ok", "warning", "ok"]
        assert str(brokers[1].port) in found["broker"][1].text
        assert found["broker: cluster"][0].result == "ok"
