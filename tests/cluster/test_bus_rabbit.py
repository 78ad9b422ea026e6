"""What only a broker can do to us: go away, come back, forget its queues, be the second of a list."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractConnection

from kilonova.agent.commands import DestroyArgs
from kilonova.bus.messages import Answer, HostReport, Message, ServerQuestion, Wake
from kilonova.bus.rabbit import RabbitBus, RabbitOptions
from kilonova.bus.transport import TlsOptions, parse_transport_url
from kilonova.errors import Transient, Unavailable
from tests.support.agents import SERVER, Heard, make_bench, make_command
from tests.support.gate import Gates
from tests.support.processes import free_port
from tests.support.rabbit import Broker

Make = Callable[..., Awaitable[RabbitBus]]
_prefixes = (f"rabbit{number}" for number in itertools.count())


@pytest.fixture
async def make(broker: Broker) -> AsyncIterator[Make]:
    prefix = next(_prefixes)
    opened: list[RabbitBus] = []

    async def make(url: str = "", tls: TlsOptions | None = None) -> RabbitBus:
        addresses, _ = parse_transport_url(url or broker.transport_url)
        bus = RabbitBus(RabbitOptions(brokers=tuple(addresses), prefix=prefix, tls=tls))
        opened.append(bus)
        await bus.start()
        return bus

    yield make
    for bus in opened:
        await bus.close()


async def connect(broker: Broker) -> AbstractConnection:
    [address], _ = parse_transport_url(broker.transport_url)
    return await aio_pika.connect(address.amqp_url(tls=False, heartbeat=5))


class OfTheNextRelease(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    server_uuid: str


class WakeOfTheNextRelease(msgspec.Struct, frozen=True, kw_only=True, tag="Wake"):
    operation_id: int
    why: str


async def arrives(bus: RabbitBus, address: str, heard: Heard, number: int) -> None:
    """Send until it arrives, as all senders here do."""
    async with asyncio.timeout(60):
        while all(wake.operation_id != number for wake in heard.of(Wake)):
            with contextlib.suppress(Transient):
                await bus.send(address, Wake(operation_id=number))
            await asyncio.sleep(0.1)


async def test_a_broker_that_dies_is_said_so_and_everything_works_again_when_it_is_back(
    make: Make, broker: Broker
) -> None:
    sender, receiver = await make(), await make()
    heard = Heard()
    await receiver.listen("agent.h1", heard)
    await arrives(sender, "agent.h1", heard, 1)
    asked = asyncio.create_task(sender.ask("agent.silent", Wake(operation_id=0), 30.0))
    await asyncio.to_thread(broker.kill)
    try:
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            await asked
        with pytest.raises(Transient, match="broker"):
            await sender.send("agent.h1", Wake(operation_id=2))
        with pytest.raises(Unavailable, match="broker"):
            await sender.ask("agent.h1", Wake(operation_id=2), 30.0)
        assert time.monotonic() - begin < 15, "callers were kept waiting for a broker that is gone"
        late = Heard()
        await receiver.listen("agent.h2", late)
    finally:
        await asyncio.to_thread(broker.start)
    await arrives(sender, "agent.h1", heard, 3)
    await arrives(sender, "agent.h2", late, 4)

    async def answer(message: Message) -> Answer:
        return Answer(data={"power_state": 1})

    await receiver.listen("agent.h3", answer)
    question = ServerQuestion(server_uuid=SERVER, what="power_state")
    assert (await sender.ask("agent.h3", question, 60.0)).data == {"power_state": 1}


async def test_a_queue_that_vanishes_under_its_listener_is_made_again(make: Make, broker: Broker) -> None:
    sender, receiver = await make(), await make()
    heard = Heard()
    await receiver.listen("agent.h1", heard)
    await arrives(sender, "agent.h1", heard, 1)
    connection = await connect(broker)
    async with connection:
        channel = await connection.channel()
        await channel.queue_delete(receiver.queue_name("agent.h1"))
    await arrives(sender, "agent.h1", heard, 2)


async def test_the_next_broker_of_the_list_is_taken_when_the_first_does_not_answer(make: Make, broker: Broker) -> None:
    bus = await make(broker.transport_url.replace("@127.0.0.1", f"@127.0.0.1:{free_port()},127.0.0.1", 1))
    heard = Heard()
    await bus.listen("agent.h1", heard)
    await arrives(bus, "agent.h1", heard, 1)


async def test_start_without_a_broker_ends_and_sends_fail_at_once(make: Make) -> None:
    bus = RabbitBus(RabbitOptions(brokers=tuple(parse_transport_url(f"rabbit://a:b@127.0.0.1:{free_port()}")[0])))
    async with asyncio.timeout(30):
        await bus.start()
    with pytest.raises(Transient):
        await bus.send("conductor", Wake(operation_id=1))
    await bus.close()


async def test_messages_of_another_release_are_dropped_and_do_not_stop_the_rest(make: Make, broker: Broker) -> None:
    bus = await make()
    heard = Heard()
    await bus.listen("agent.h1", heard)
    connection = await connect(broker)
    async with connection:
        channel = await connection.channel()
        for body in (b"\xc1", msgspec.msgpack.encode({"type": "FromTheFuture", "x": 1})):
            message = aio_pika.Message(body)
            await channel.default_exchange.publish(message, bus.queue_name("agent.h1"))
    await arrives(bus, "agent.h1", heard, 1)
    assert all(isinstance(message, Wake) for message in heard.messages)


async def test_tls_is_spoken_and_a_stranger_s_broker_is_refused(make: Make, broker: Broker, tmp_path: Path) -> None:
    url = broker.transport_url.replace(f":{broker.port}", f":{broker.tls_port}").replace("127.0.0.1", "localhost")
    bus = await make(url, TlsOptions(ca_file=broker.directory / "ca.pem"))
    heard = Heard()
    await bus.listen("agent.h1", heard)
    await arrives(bus, "agent.h1", heard, 1)
    addresses, _ = parse_transport_url(url)
    stranger = RabbitBus(RabbitOptions(brokers=tuple(addresses), tls=TlsOptions()))
    stranger.sending.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await stranger.sending.up.wait()
    await stranger.close()


async def test_an_agent_over_the_broker_boots_loses_its_broker_and_deletes(
    make: Make, broker: Broker, tmp_path: Path
) -> None:
    bus = await make()
    async with make_bench(tmp_path, bus=bus) as bench:
        await bench.agent(report_interval=0.5)
        boot = make_command()
        await bench.send(boot)
        assert (await bench.heard.result(boot.key)).error is None
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        destroy = make_command("2/destroy/do/0.0", "destroy", DestroyArgs(uuid=SERVER))
        async with asyncio.timeout(60):
            while not bench.heard.results(destroy.key):
                with contextlib.suppress(Transient):
                    await bench.send(destroy)
                await asyncio.sleep(0.2)
        assert bench.driver.left() == []
        assert bench.heard.of(HostReport)


async def test_a_network_that_swallows_everything_is_survived_in_both_directions(broker: Broker) -> None:
    """Cleaning up after such a connection may wait without end; nobody must wait with it."""
    gates = Gates()
    gate = gates.add(broker.port)
    url = broker.transport_url.replace(f":{broker.port}/", f":{gate.port}/")
    addresses = tuple(parse_transport_url(url)[0])
    bus = RabbitBus(RabbitOptions(brokers=addresses, prefix="gated", heartbeat=1))
    heard = asyncio.Event()

    async def hear(message: Message) -> Answer | None:
        heard.set()
        return Answer(data={"heard": True})

    try:
        await bus.start()
        await bus.listen("here", hear)
        assert bus.missed(60.0) == 0.0
        for _ in range(3):
            gate.cut()
            # One that is refused at once, and one that is taken and never confirmed, are both to be told.
            with contextlib.suppress(Transient, Unavailable):
                async with asyncio.timeout(20):
                    await bus.ask("here", Wake(operation_id=1), 3.0)
            while bus.sending.up.is_set() or bus.listening.up.is_set():
                await asyncio.sleep(0.1)
            assert bus.missed(60.0) > 0.0
            gate.mend()
            async with asyncio.timeout(40):
                await bus.sending.up.wait()
                await bus.listening.up.wait()
            heard.clear()
            assert (await bus.ask("here", Wake(operation_id=2), 20.0)).data == {"heard": True}
            assert heard.is_set()
        assert bus.missed(60.0) > 0.0
        assert bus.missed(0.0) == 0.0
    finally:
        await bus.close()
        gates.close()


async def test_what_only_the_next_release_says_is_refused_and_stops_nothing(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Roles of two releases side by side: unknown kinds of messages, and unknown fields of known ones."""
    new, old = await make(), await make()
    heard = Heard()
    await old.listen("conductor", heard)
    unknown: Message = OfTheNextRelease(server_uuid="s")  # type: ignore[assignment]
    more: Message = WakeOfTheNextRelease(operation_id=7, why="because")  # type: ignore[assignment]
    await new.send("conductor", unknown)
    answer = await new.ask("conductor", unknown, 30.0)
    assert answer.error == "The receiver does not understand this message."
    await new.send("conductor", more)
    await heard.until(lambda: heard.messages)
    assert heard.messages == [Wake(operation_id=7)]
    assert capsys.readouterr().out.count("bus.not_understood") == 2
