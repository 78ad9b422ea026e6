"""`host_identity = required` on a real broker: what a host's own user can do, and all that it cannot."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, urlsplit

import aio_pika
import aiormq.exceptions
import msgspec
import pytest

from kilonova.agent.commands import DestroyArgs
from kilonova.agent.driver import Inventory, Secrets
from kilonova.bus.identity import Senders
from kilonova.bus.messages import (
    Answer,
    CacheImages,
    ConsumeConsoleToken,
    Heartbeat,
    Heartbeats,
    HostReport,
    LiveConsoles,
    Message,
    NetworkEvent,
    PowerReport,
    ProgressReport,
    Result,
    SchedulingQuestion,
    ServerQuestion,
    Unchanged,
    Wake,
)
from kilonova.bus.rabbit import RabbitBus, RabbitOptions
from kilonova.bus.transport import parse_transport_url
from kilonova.errors import Unavailable
from kilonova.metrics import families
from kilonova.network.messages import PlaneGreeting, PlanePlan, PlaneReport
from kilonova.scheduler.request import PlacementRequest
from tests.cluster.test_roles import client, make_server, status_of, wait_for
from tests.support.agents import make_command
from tests.support.cluster import Cluster, Member, make_cluster
from tests.support.mariadb import MariaDB
from tests.support.processes import end, free_port
from tests.support.rabbit import Broker

pytestmark = pytest.mark.timeout(300)

SECRET = "ho/st$s@cret"
TABLES = {
    "services": "host, `binary`, incarnation, last_seen, boot_id",
    "compute_nodes": "host, hypervisor_hostname, vcpus, memory_mb",
    "instances": "uuid, host, vm_state, power_state, task_state, operation_id, generation, deleted",
    "instance_actions": "id, kind, state, progress",
    "console_auth_tokens": "server_uuid, token_hash, session_hash, connection, revoked",
}


def transport_url(broker: Broker, user: str) -> str:
    return f"rabbit://{user}:{quote(SECRET, safe='')}@127.0.0.1:{broker.port}//"


def add_hosts(broker: Broker, prefix: str, *users: str) -> None:
    """As docs/deployment.md says."""
    rights = {}
    for user in users:
        host = re.escape(user.partition(".")[2])
        rights[user] = (rf"^({re.escape(prefix)}\.(agent|plane)\.{host}|amq\.gen-.*)$", r"^amq\.default$")
    broker.add_users(rights, SECRET)


@pytest.fixture(scope="module")
def cluster(mariadb: MariaDB, broker: Broker) -> Iterator[Cluster]:
    """Two hosts, compute1 and compute2, each with a user of its own, and a conductor that shows its metrics."""
    options = {"DEFAULT": {"report_interval": 1, "host_identity": "required", "control_users": Broker.user}}
    counts = {"api": 1, "conductor": 1, "scheduler": 1, "consoleauth": 1}
    with make_cluster(mariadb, broker, counts=counts, hosts=1, options=options) as made:
        network = made.add("network")
        place = f"[neutron]\nendpoint_override = http://127.0.0.1:{made.identity_port}\n"
        place += f"[plane]\nhints = 127.0.0.1:{free_port()}\n"
        network.config.write_text(f"{network.config.read_text()}\n{place}")
        made.start(network)
        add_hosts(broker, made.prefix, "nova-compute.compute1", "nova-compute.compute2")
        hosts = [made.add("compute"), made.add("compute")]
        for host in hosts:
            text = host.config.read_text()
            host.config.write_text(
                text.replace(broker.transport_url, transport_url(broker, f"nova-compute.{host.name}"))
            )
        made.start(*hosts)
        made.wait_for_hosts(2, 120)
        yield made


def picture(cluster: Cluster) -> dict[str, list[list[str]]]:
    """All that a host could change; of services only what is said of hosts that do not run."""
    rows = {table: cluster.query(f"SELECT {columns} FROM {table}") for table, columns in TABLES.items()}
    rows["services"] = [row for row in rows["services"] if row[0] == "compute2"]
    return rows


def refusals(member: Member) -> list[str]:
    return [line for line in member.log.read_text().splitlines() if "bus.sender_refused" in line]


def until_refused(member: Member, most: int) -> None:
    wait_for(lambda: len(refusals(member)) == most)


def lies(server: str) -> list[Message]:
    """What the agent of compute1 could say to a conductor and may not: for compute2, or for nobody's host."""
    inventory = Inventory(
        hypervisor_type="QEMU",
        hypervisor_version=1,
        hypervisor_hostname="compute2",
        vcpus=9999,
        memory_mb=1,
        local_gb=1,
    )
    ghost = msgspec.structs.replace(inventory, hypervisor_hostname="ghost")
    unchanged = Unchanged(digest="x", hypervisor_hostname="compute2")
    return [
        Heartbeat(host="compute2", binary="nova-compute", incarnation="x"),
        Heartbeat(host="compute1", binary="nova-conductor", incarnation="x"),
        Heartbeat(host="ghost", binary="nova-scheduler", incarnation="x"),
        Heartbeats(hosts={"compute1": "x", "compute2": "x"}, binary="nova-compute"),
        Heartbeats(hosts={"compute1": "x"}, binary="nova-compute", unchanged={"compute2": unchanged}),
        HostReport(host="compute2", incarnation="x", inventory=inventory, boot_id="another"),
        HostReport(host="ghost", incarnation="x", inventory=ghost),
        PowerReport(host="compute2", incarnation="x", states={server: 4}, complete=True),
        Result(key="1/build/do/0.0", operation_id=1, host="compute2", error="broken", error_kind="host"),
        ProgressReport(key="1/build/do/0.0", operation_id=1, host="compute2", stage="disks", percent=1),
        Wake(operation_id=1),
        NetworkEvent(server_uuid=server, name="changed"),
    ]


def consoles(token: str) -> list[Message]:
    """What proxies alone may ask."""
    return [ConsumeConsoleToken(token=token, session="mine"), LiveConsoles(connections=["x"])]


def planes() -> list[Message]:
    """What the plane of compute2 alone may say, and what the role `network` alone may."""
    return [
        PlaneGreeting(host="compute2", incarnation="x", tunnel_ip="192.0.2.66"),
        PlaneReport(host="compute2", incarnation="x", ports=["p"], routers={"r": "ERROR"}, floatingips={"f": "DOWN"}),
        PlaneReport(host="ghost", incarnation="x"),
        PlanePlan(host="compute2", digest="x", content=msgspec.Raw(b"\xc0")),
    ]


async def send_all(cluster: Cluster, sent: list[tuple[str, Message]], *, user_id: str | None) -> None:
    """With compute1's credentials, as an agent that somebody else has written would."""
    connection = await aio_pika.connect(
        host="127.0.0.1", port=cluster.broker.port, login="nova-compute.compute1", password=SECRET
    )
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        for address, message in sent:
            body = msgspec.msgpack.encode(message)
            out = aio_pika.Message(body, type=type(message).__name__, user_id=user_id, reply_to="nowhere")
            await channel.default_exchange.publish(out, f"{cluster.prefix}.{address}")


def test_a_hostile_agent_changes_nothing_of_another_hosts(cluster: Cluster) -> None:
    (conductor,), (scheduler,) = cluster.of("conductor"), cluster.of("scheduler")
    first, second = cluster.of("compute")
    with client(cluster.of("api")[0].port) as http:
        victim = make_server(http, "nova:compute2")
        servers = [victim, make_server(http, "nova:compute1")]
        wait_for(lambda: all(status_of(http, server) == "ACTIVE" for server in servers))

        # Commands of another host's agent, by one that is not a conductor.
        destroy = make_command("99/destroy/do/0.0", "destroy", DestroyArgs(uuid=victim), uuid=victim)
        orders: list[Message] = [
            destroy,
            CacheImages(images=[], secrets=Secrets()),
            ServerQuestion(server_uuid=victim, what="console_output"),
        ]
        asyncio.run(send_all(cluster, [("agent.compute2", each) for each in orders], user_id="nova-compute.compute1"))
        wait_for(lambda: len(refusals(second)) == len(orders))

        # What consoles of another host's guests are opened with, in its hands by whatever way.
        body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
        url = http.post(f"/servers/{victim}/remote-consoles", json=body).json()["remote_console"]["url"]
        token = parse_qs(urlsplit(url).query)["path"][0].removeprefix("?token=")
        for role, address, sent in (
            ("consoleauth", "consoleauth", consoles(token)),
            ("network", "network", planes()),
        ):
            (member,) = cluster.of(role)
            for user_id in ("nova-compute.compute1", None):
                most = len(refusals(member)) + len(sent)
                asyncio.run(send_all(cluster, [(address, each) for each in sent], user_id=user_id))
                until_refused(member, most)
        assert cluster.query("SELECT COUNT(*) FROM console_auth_tokens WHERE connection IS NOT NULL") == [["0"]]

        # Nothing of compute2 is heard from here on but what others say of it.
        assert second.process is not None
        end(second.process)
        time.sleep(2.5)
        before = picture(cluster)
        said = [("conductor", each) for each in lies(victim)]
        asyncio.run(send_all(cluster, said, user_id="nova-compute.compute1"))
        wait_for(lambda: len(refusals(conductor)) == len(said))
        asyncio.run(send_all(cluster, said, user_id=None))
        wait_for(lambda: len(refusals(conductor)) == 2 * len(said))
        question = SchedulingQuestion(request=PlacementRequest(vcpus=1, memory_mb=1, disk_gb=0))
        asyncio.run(send_all(cluster, [("scheduler", question)], user_id="nova-compute.compute1"))
        wait_for(lambda: len(refusals(scheduler)) == 1)
        # What it may say, of a server that is not its own.
        incarnation = cluster.query("SELECT incarnation FROM services WHERE host = 'compute1'")[0][0]
        own = PowerReport(host="compute1", incarnation=incarnation, states={victim: 4})
        asyncio.run(send_all(cluster, [("conductor", own)], user_id="nova-compute.compute1"))
        wait_for(lambda: "host has a guest that it should not have" in conductor.log.read_text())
        assert picture(cluster) == before
        assert all("nova-compute.compute1" in line or '"user": null' in line for line in refusals(conductor))

        cluster.start(second)
        wait_for(lambda: status_of(http, victim) == "ACTIVE")
        for server in servers:
            assert http.delete(f"/servers/{server}").status_code == 204
        wait_for(lambda: all(status_of(http, server) is None for server in servers))
    assert not refusals(first), "the control plane's own commands"


async def test_the_broker_itself_refuses_another_user_s_name_and_another_hosts_queue(cluster: Cluster) -> None:
    lie = Wake(operation_id=1)
    with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="user_id"):
        await send_all(cluster, [("conductor", lie)], user_id=Broker.user)
    connection = await aio_pika.connect(
        host="127.0.0.1", port=cluster.broker.port, login="nova-compute.compute1", password=SECRET
    )
    async with connection:
        for name in ("agent.compute2", "plane.compute2", "conductor", "scheduler", "consoleauth"):
            queue = f"{cluster.prefix}.{name}"
            channel = await connection.channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await channel.declare_queue(queue)
            channel = await connection.channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await channel.queue_delete(queue)
            channel = await connection.channel()
            underlay = await channel.get_underlay_channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await underlay.basic_get(queue)


async def test_an_answer_counts_only_from_whom_was_asked_and_is_counted_otherwise(
    cluster: Cluster, broker: Broker
) -> None:
    """The worst case: the liar knows the queue of answers and the question's number."""
    prefix = f"{cluster.prefix}-answers"
    add_hosts(broker, prefix, "nova-compute.one", "nova-compute.two")
    senders = Senders(control=frozenset({Broker.user}))

    def bus(url: str) -> RabbitBus:
        return RabbitBus(RabbitOptions(brokers=tuple(parse_transport_url(url)[0]), prefix=prefix, senders=senders))

    asker, one, two = (
        bus(broker.transport_url),
        *(bus(transport_url(broker, f"nova-compute.{h}")) for h in ("one", "two")),
    )
    refused = families.MESSAGES_REFUSED.labels("Answer")
    before = refused._value.get()

    async def answer(message: Message) -> Answer:
        [number] = asker._asked
        assert asker._reply_queue is not None
        await one.reply(asker._reply_queue, number, Answer(data={"by": "one"}))
        while refused._value.get() == before:
            await asyncio.sleep(0.05)
        return Answer(data={"by": "two"})

    async def nothing(message: Message) -> Answer:
        return Answer(data={"heard": True})

    try:
        for each in (asker, one, two):
            await each.start()
        await two.listen("agent.two", answer)
        assert (await asker.ask("agent.two", Wake(operation_id=1), 30.0)).data == {"by": "two"}
        await asker.listen("conductor", nothing)
        with pytest.raises(Unavailable):
            await one.ask("conductor", Wake(operation_id=1), 2.0)
        assert families.MESSAGES_REFUSED.labels("Wake")._value.get() >= 1
    finally:
        for each in (asker, one, two):
            await each.close()


def test_refusals_are_in_the_conductors_metrics(cluster: Cluster) -> None:
    port = free_port()
    member = cluster.add("conductor")
    text = member.config.read_text()
    assert "enabled = False" in text
    member.config.write_text(text.replace("enabled = False", f"enabled = True\nport = {port}"))
    cluster.start(member)

    def counted() -> bool:
        asyncio.run(send_all(cluster, [("conductor", Wake(operation_id=1))] * 4, user_id="nova-compute.compute1"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            return 'kilonova_messages_refused_total{message="Wake"}' in answer.read().decode()

    wait_for(counted)
    assert member.process is not None
    end(member.process)
