"""SIGTERM while work is under way: an agent and a conductor end it within their time, or leave it whole to the next."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.cluster.test_roles import client, make_server, wait_for
from tests.support.cluster import Cluster, Member, make_cluster
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker

pytestmark = pytest.mark.timeout(300)

COUNTS = {"api": 1, "conductor": 1, "scheduler": 1, "compute": 1}
LONG, SHORT = 600, 1
"""Seconds: longer than any test, and so short that nothing is done in it."""


@pytest.fixture
def cluster(mariadb: MariaDB, broker: Broker) -> Iterator[Cluster]:
    options = {"DEFAULT": {"report_interval": 1}, "sim": {"durations": "disks:5"}}
    with make_cluster(mariadb, broker, counts=COUNTS, hosts=1, options=options) as made:
        yield made


def again(cluster: Cluster, member: Member, *, grace: int, disks: float) -> None:
    """End it in order and start it with another patience, at a host that takes another time."""
    terminate(member)
    text = re.sub("graceful_shutdown_timeout = .*", f"graceful_shutdown_timeout = {grace}", member.config.read_text())
    member.config.write_text(re.sub("durations = .*", f"durations = disks:{disks}", text))
    cluster.start(member)


def terminate(member: Member) -> None:
    assert member.process is not None
    member.process.send_signal(signal.SIGTERM)
    assert member.process.wait(90) == 0, member.log.read_text()


def under_way(cluster: Cluster) -> int:
    """Commands in the agent's journal that have not ended."""
    (journal,) = cluster.directory.glob("compute1/agent/journal.sqlite")
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=30)) as database:
        return int(database.execute("SELECT COUNT(*) FROM command WHERE ended IS NULL").fetchone()[0])


def state_of(cluster: Cluster, server: str) -> str:
    return cluster.query(f"SELECT vm_state FROM instances WHERE uuid = '{server}'")[0][0]


def begun(cluster: Cluster) -> str:
    """A server whose boot has reached its host and goes on there."""
    with client(cluster.of("api")[0].port) as http:
        server = make_server(http)
    wait_for(lambda: under_way(cluster) == 1)
    return server


def built_once(cluster: Cluster, server: str) -> bool:
    operations = cluster.query(f"SELECT state FROM instance_actions WHERE server_uuid = '{server}'")
    errors = cluster.query(
        "SELECT COUNT(*) FROM instance_actions_events e JOIN instance_actions a ON a.id = e.operation_id"
        f" WHERE a.server_uuid = '{server}' AND e.result = 'Error'"
    )
    used = cluster.query("SELECT vcpus_used FROM compute_nodes")
    return operations == [["done"]] and errors == [["0"]] and used == [["1"]]


def test_an_agent_ends_what_it_can_and_says_so_before_it_goes(cluster: Cluster) -> None:
    (agent,) = cluster.of("compute")
    again(cluster, agent, grace=90, disks=5)
    server = begun(cluster)
    terminate(agent)
    assert under_way(cluster) == 0
    # Its result was on its way before it went: nobody waits for its return.
    wait_for(lambda: state_of(cluster, server) == "active")
    wait_for(lambda: built_once(cluster, server))


def test_an_agent_leaves_what_takes_longer_to_its_journal_and_goes_on_at_its_return(cluster: Cluster) -> None:
    (agent,) = cluster.of("compute")
    again(cluster, agent, grace=SHORT, disks=LONG)
    server = begun(cluster)
    terminate(agent)
    assert under_way(cluster) == 1
    assert state_of(cluster, server) == "building"
    agent.config.write_text(agent.config.read_text().replace(f"disks:{LONG}", "disks:0.02"))
    cluster.start(agent)
    wait_for(lambda: state_of(cluster, server) == "active")
    wait_for(lambda: built_once(cluster, server))


def test_a_conductor_ends_what_it_can_before_it_goes(cluster: Cluster) -> None:
    (conductor,) = cluster.of("conductor")
    again(cluster, conductor, grace=90, disks=5)
    server = begun(cluster)
    terminate(conductor)
    # Nobody else was there to do it.
    assert state_of(cluster, server) == "active"
    assert built_once(cluster, server)


def test_a_conductor_gives_back_what_takes_longer_and_another_takes_it_up_at_once(cluster: Cluster) -> None:
    (conductor,), (agent,) = cluster.of("conductor"), cluster.of("compute")
    again(cluster, conductor, grace=SHORT, disks=5)
    again(cluster, agent, grace=SHORT, disks=LONG)
    server = begun(cluster)
    terminate(conductor)
    leased = (
        "SELECT COUNT(*) FROM instance_actions WHERE state = 'running' AND lease_until > UNIX_TIMESTAMP(SYSDATE(6))"
    )
    assert cluster.query(leased) == [["0"]], "a lease of half a minute would have to be waited for"
    cluster.start(cluster.add("conductor"))
    wait_for(lambda: cluster.query(leased) == [["1"]])
    agent.config.write_text(agent.config.read_text().replace(f"disks:{LONG}", "disks:0.02"))
    terminate(agent)
    cluster.start(agent)
    wait_for(lambda: state_of(cluster, server) == "active")
    wait_for(lambda: built_once(cluster, server))
