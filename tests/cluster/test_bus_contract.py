"""What every bus does, in one process or over RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from kilonova.bus import ONE_AT_A_TIME, Bus
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, Command, Heartbeat, Message, ServerQuestion, Wake
from kilonova.bus.rabbit import RabbitBus, RabbitOptions
from kilonova.bus.transport import parse_transport_url
from kilonova.errors import Invalid, Unavailable
from tests.support.agents import Heard, make_command
from tests.support.rabbit import Broker

Connect = Callable[[], Awaitable[Bus]]
_prefixes = (f"contract{number}" for number in itertools.count())


@pytest.fixture(params=["memory", "rabbit"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Connects one more role: to the same bus in memory, with a connection of its own in RabbitMQ."""
    opened: list[Bus] = []
    memory = MemoryBus()
    prefix = next(_prefixes)

    async def make() -> Bus:
        bus: Bus = memory
        if request.param == "rabbit":
            broker: Broker = request.getfixturevalue("broker")
            addresses, _ = parse_transport_url(broker.transport_url)
            bus = RabbitBus(RabbitOptions(brokers=tuple(addresses), prefix=prefix))
        await bus.start()
        opened.append(bus)
        return bus

    if request.param == "rabbit":
        request.getfixturevalue("broker")
    yield make
    for bus in opened:
        await bus.close()


QUESTION = ServerQuestion(server_uuid="s", what="power_state")


async def test_a_message_arrives_whole_and_is_not_the_senders_object(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    heard = Heard()
    await receiver.listen("agent.h1", heard)
    command = make_command()
    await sender.send("agent.h1", command)
    await heard.until(lambda: heard.messages)
    [got] = heard.of(Command)
    assert got == command
    assert got is not command


async def test_a_message_to_nobody_is_no_error(connect: Connect) -> None:
    sender = await connect()
    await sender.send("agent.nowhere", Wake(operation_id=1))


async def test_an_address_is_its_listeners_alone(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    one, two = Heard(), Heard()
    await receiver.listen("agent.h1", one)
    await receiver.listen("agent.h2", two)
    for number in range(10):
        await sender.send("agent.h1", Wake(operation_id=number))
        await sender.send("agent.h2", Wake(operation_id=100 + number))
    await one.until(lambda: len(one.messages) == 10)
    await two.until(lambda: len(two.messages) == 10)
    assert {wake.operation_id for wake in one.of(Wake)} == set(range(10))
    assert {wake.operation_id for wake in two.of(Wake)} == set(range(100, 110))


async def test_listeners_of_one_address_share_its_messages(connect: Connect) -> None:
    sender, a, b = await connect(), await connect(), await connect()
    one, two = Heard(), Heard()
    await a.listen("conductor", one)
    await b.listen("conductor", two)
    for number in range(40):
        await sender.send("conductor", Wake(operation_id=number))
    async with asyncio.timeout(20):
        while len(one.messages) + len(two.messages) < 40:
            await asyncio.sleep(0.01)
    assert one.messages
    assert two.messages
    ids = [wake.operation_id for wake in one.of(Wake) + two.of(Wake)]
    assert sorted(ids) == list(range(40))


async def test_where_one_listener_counts_it_gets_everything_until_it_goes(connect: Connect) -> None:
    """Of two roles `network` each would know a part of what planes have reported."""
    sender, a, b = await connect(), await connect(), await connect()
    one, two = Heard(), Heard()
    (address,) = ONE_AT_A_TIME
    first = await a.listen(address, one)
    await b.listen(address, two)
    for number in range(20):
        await sender.send(address, Wake(operation_id=number))
    await one.until(lambda: len(one.messages) == 20)
    assert not two.messages
    await first.close()
    for number in range(20, 40):
        await sender.send(address, Wake(operation_id=number))
    await two.until(lambda: len(two.messages) == 20)
    assert sorted(wake.operation_id for wake in two.of(Wake)) == list(range(20, 40))
    assert len(one.messages) == 20


async def test_a_question_gets_its_own_answer(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()

    async def double(message: Message) -> Answer:
        assert isinstance(message, Wake)
        await asyncio.sleep(0.002 * (20 - message.operation_id))
        return Answer(data={"value": message.operation_id * 2})

    await receiver.listen("agent.h1", double)
    answers = await asyncio.gather(*(sender.ask("agent.h1", Wake(operation_id=n), 10.0) for n in range(20)))
    assert [answer.data["value"] for answer in answers] == [n * 2 for n in range(20)]


async def test_a_question_to_nobody_is_unavailable_after_its_time(connect: Connect) -> None:
    sender = await connect()
    with pytest.raises(Unavailable, match=r"agent\.nowhere"):
        await sender.ask("agent.nowhere", QUESTION, 0.2)


async def test_a_late_answer_harms_nobody(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    told: list[str] = []

    async def slow(message: Message) -> Answer:
        await asyncio.sleep(0.3 if not told else 0)
        told.append("once")
        return Answer(data={"number": len(told)})

    await receiver.listen("agent.h1", slow)
    with pytest.raises(Unavailable):
        await sender.ask("agent.h1", QUESTION, 0.05)
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.01)
    assert (await sender.ask("agent.h1", QUESTION, 5.0)).data == {"number": 2}


async def test_a_handlers_error_becomes_the_answer_and_does_not_end_the_listening(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()

    async def fail(message: Message) -> Answer:
        if isinstance(message, Wake):
            raise ValueError("secret inside")
        raise Invalid("This cannot be asked.")

    await receiver.listen("agent.h1", fail)
    for _ in range(3):
        answer = await sender.ask("agent.h1", QUESTION, 5.0)
        assert answer.error == "This cannot be asked."
        answer = await sender.ask("agent.h1", Wake(operation_id=1), 5.0)
        assert answer.error
        assert "secret" not in answer.error


async def test_no_more_handlers_run_at_once_than_allowed(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    running, most, done = 0, 0, 0
    finished = asyncio.Event()

    async def work(message: Message) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        done += 1
        if done == 20:
            finished.set()

    await receiver.listen("agent.h1", work, concurrency=3)
    for number in range(20):
        await sender.send("agent.h1", Wake(operation_id=number))
    async with asyncio.timeout(20):
        await finished.wait()
    assert most == 3


async def test_closing_a_subscription_waits_for_its_handlers_and_takes_nothing_more(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    begun, ended = asyncio.Event(), []

    async def work(message: Message) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        ended.append(message)

    subscription = await receiver.listen("agent.h1", work)
    await sender.send("agent.h1", Wake(operation_id=1))
    await begun.wait()
    await subscription.close()
    assert len(ended) == 1
    await sender.send("agent.h1", Wake(operation_id=2))
    await asyncio.sleep(0.1)
    assert len(ended) == 1


async def test_what_waits_for_a_closed_listener_goes_to_the_other(connect: Connect) -> None:
    sender, a, b = await connect(), await connect(), await connect()
    release = asyncio.Event()
    taken: list[Message] = []

    async def hold(message: Message) -> None:
        await release.wait()
        taken.append(message)

    first = await a.listen("conductor", hold, concurrency=1)
    for number in range(5):
        await sender.send("conductor", Wake(operation_id=number))
    heard = Heard()
    await b.listen("conductor", heard)
    closing = asyncio.create_task(first.close())
    await asyncio.sleep(0.05)
    release.set()
    await closing
    await heard.until(lambda: len(heard.messages) + len(taken) == 5)
    ids = {wake.operation_id for wake in (*heard.of(Wake), *taken) if isinstance(wake, Wake)}
    assert ids == set(range(5))


async def test_a_thousand_messages_arrive_once_each(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    heard = Heard()
    await receiver.listen("conductor", heard)
    beats = [Heartbeat(host=f"h{n}", binary="nova-compute", incarnation="i") for n in range(1000)]
    await asyncio.gather(*(sender.send("conductor", beat) for beat in beats))
    await heard.until(lambda: len(heard.messages) >= 1000)
    assert sorted(beat.host for beat in heard.of(Heartbeat)) == sorted(beat.host for beat in beats)
