"""Roles as processes on MariaDB and RabbitMQ, 200 simulated hosts: `make bench-cluster` (docs/performance.md).

Two API, two conductor, two scheduler and four compute processes; the database commits durably. Identity and Image are
stand-ins that answer at once, and tokens are known after the first request. The load comes from two processes of plain
sockets. All of it shares the machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass, field

import psutil

from bench.document import write
from bench.processes import Client
from tests.support.cluster import IMAGE, Cluster, Member, durable_servers, make_cluster
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker

PROJECT = "6f70656e737461636b20342065766572"
TOKEN = f"root:{PROJECT}:admin,member,reader"
MIB = 1 << 20
MANY = 100_000
ROUNDS = 8
"""Of requests in turns."""
SETTLING = 330.0
"""Seconds: what hosts recall in the minutes after their start is over, and power states come as they will go on to."""
RESTING = 60.0
"""Seconds for which they are watched then."""
PROCESSES = 8
"""Of hosts that only report: each host is a channel, and a connection to the broker has 2,047."""
OPTIONS = {
    "DEFAULT": {"initial_cpu_allocation_ratio": 1000.0},
    "sim": {"memory_mb": 1 << 20, "local_gb": 1 << 20, "durations": ""},
}


def request(method: str, path: str, body: object = None) -> bytes:
    raw = json.dumps(body).encode() if body is not None else b""
    head = (
        f"{method} /v2.1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Auth-Token: {TOKEN}\r\n"
        f"OpenStack-API-Version: compute 2.90\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


SERVER = request(
    "POST", "/servers", {"server": {"name": "bench", "imageRef": IMAGE, "flavorRef": "bench", "networks": "none"}}
)


@dataclass(kw_only=True)
class Found:
    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: str) -> None:
        self.rows.append((what, value))
        print(f"{what}: {value}", flush=True)

    def table(self) -> str:
        return "\n".join(
            ["| what | measured |", "| --- | ---: |", *(f"| {what} | {value} |" for what, value in self.rows)]
        )


class Usage:
    """Processor time of everything between two moments, by role."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._before = self._now()
        self._began = time.monotonic()

    def _now(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for member in self._cluster.members.values():
            total[member.role] = total.get(member.role, 0.0) + _cpu(member.pid)
        for name, pid in (("MariaDB", _server(self._cluster).pid), ("RabbitMQ", self._cluster.broker.pid)):
            total[name] = _cpu(pid) + sum(_cpu(child.pid) for child in psutil.Process(pid).children(recursive=True))
        return total

    def used(self) -> tuple[dict[str, float], float]:
        """Seconds by role, and seconds that have passed."""
        now = self._now()
        return {name: now[name] - self._before[name] for name in now}, time.monotonic() - self._began


def _cpu(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _server(cluster: Cluster) -> MariaDB:
    assert isinstance(cluster.server, MariaDB)
    return cluster.server


def _questions(cluster: Cluster) -> int:
    return int(_server(cluster).execute("SHOW GLOBAL STATUS LIKE 'Questions'").split()[1])


FIXED = "a fixed piece of work, ms of CPU: median (least to most)"


class Yardstick:
    """Processor time of a fixed piece of work, now and then: a machine with neighbours gives more or less for it."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    def take(self) -> None:
        began = time.process_time()
        sum(number * number % 7 for number in range(300_000))
        self._taken.append(1e3 * (time.process_time() - began))

    def text(self) -> str:
        return f"{statistics.median(self._taken):.0f} ({min(self._taken):.0f} to {max(self._taken):.0f})"


def memory(cluster: Cluster, found: Found, when: str) -> None:
    for role in ("api", "conductor", "scheduler", "compute"):
        sizes = [psutil.Process(member.pid).memory_info().rss / MIB for member in cluster.of(role)]
        what = f"memory of a process `{role}`, {when} (RSS), MiB"
        found.add(what + (" (50 hosts)" if role == "compute" else ""), f"{max(sizes):.0f}")


def burst(cluster: Cluster, clients: list[Client], count: int, found: Found) -> None:
    usage, questions = Usage(cluster), _questions(cluster)
    began = time.monotonic()
    for client, api in zip(clients, cluster.of("api"), strict=True):
        client.begin(api.port, [SERVER], connections=32, count=count // 2)
    statuses = [client.result()["statuses"] for client in clients]
    accepted = time.monotonic() - began
    if statuses != [{"202": count // 2}] * 2:
        raise RuntimeError(f"creating servers: answers with {statuses}")
    while int(cluster.query("SELECT COUNT(*) FROM instances WHERE vm_state = 'active' AND deleted = 0")[0][0]) < count:
        time.sleep(0.05)
        if time.monotonic() - began > 300:
            raise RuntimeError("the servers did not become ACTIVE within 300 s")
    elapsed = time.monotonic() - began
    used, _ = usage.used()
    found.add(f"burst of {count} creates over 200 hosts, until all ACTIVE, servers per s", f"{count / elapsed:.1f}")
    found.add("the same until the last 202, servers per s", f"{count / accepted:.1f}")
    found.add(
        "statements of one create to ACTIVE, BEGIN and COMMIT included",
        f"{(_questions(cluster) - questions) / count:.1f}",
    )
    each = ", ".join(f"{name} {1e3 * seconds / count:.1f}" for name, seconds in used.items())
    found.add("CPU of one create to ACTIVE, ms", f"{1e3 * sum(used.values()) / count:.1f} ({each})")


def lists(cluster: Cluster, client: Client, found: Found, when: str) -> dict[str, float]:
    """Returns how many times a request that knows no servers each takes, asked in turns with it."""
    api = cluster.of("api")[0]

    def timed(path: str, seconds: float) -> tuple[float, int]:
        answer = client.send(api.port, [request("GET", path)], seconds=seconds)
        if set(answer["statuses"]) != {"200"}:
            raise RuntimeError(f"{path}: answers with {answer['statuses']}")
        return answer["median"], answer["statuses"]["200"]

    (uuid,) = cluster.query("SELECT uuid FROM instances WHERE deleted = 0 ORDER BY id LIMIT 1")[0]
    times = {}
    for what, path in (("show", f"/servers/{uuid}"), ("first page of 100, detailed", "/servers/detail?limit=100")):
        medians, ratios, cpu, count = [], [], 0.0, 0
        for _ in range(ROUNDS):
            other, _ = timed("/flavors", 0.25)
            before = _cpu(api.pid)
            median, answers = timed(path, 0.75)
            cpu, count = cpu + _cpu(api.pid) - before, count + answers
            medians.append(median)
            ratios.append(median / other)
        times[what] = statistics.median(ratios)
        measured = f"{1e3 * statistics.median(medians):.2f} ({1e3 * cpu / count:.2f}; {times[what]:.2f})"
        found.add(f"{what}, {when}: median ms (CPU of the API, ms; times GET /flavors)", measured)
    return times


def multiply(cluster: Cluster, count: int) -> None:
    """Copies of the first server in the same project until there are `count`."""
    names = [row[0] for row in cluster.query("SHOW COLUMNS FROM instances") if row[0] not in ("id", "uuid")]
    columns = ", ".join(f"`{name}`" for name in names)
    there = int(cluster.query("SELECT COUNT(*) FROM instances")[0][0])
    while there < count:
        batch = min(count - there, 10_000)
        cluster.query(
            f"INSERT INTO instances (uuid, {columns}) SELECT UUID(), {columns} FROM"
            f" (SELECT * FROM instances ORDER BY id LIMIT 1) one, seq_1_to_{batch}"
        )
        there += batch
    cluster.query("ANALYZE TABLE instances")


def heartbeats(mariadb: MariaDB, broker: Broker, found: Found, hosts: int, seconds: float) -> None:
    yardstick = Yardstick()
    counts = {"api": 1, "conductor": 2, "scheduler": 2, "compute": PROCESSES}
    with make_cluster(
        mariadb, broker, counts=counts, hosts=hosts // PROCESSES, options=OPTIONS, patience=900
    ) as cluster:
        time.sleep(SETTLING)
        usage, questions = Usage(cluster), _questions(cluster)
        for _ in range(10):
            time.sleep(seconds / 10)
            yardstick.take()
        used, passed = usage.used()
        each = ", ".join(f"{name} {100 * cpu / passed:.1f}" for name, cpu in used.items())
        found.add(
            f"{hosts:,} hosts that only report: share of one core, %",
            f"{100 * sum(used.values()) / passed:.1f} ({each})",
        )
        found.add("the same, statements per s", f"{(_questions(cluster) - questions) / passed:.1f}")
        ((up,),) = cluster.query(
            "SELECT COUNT(*) FROM services WHERE `binary` = 'nova-compute' AND last_seen > UNIX_TIMESTAMP() - 30"
        )
        found.add("hosts heard of in the last 30 s", up)
        found.add(f"{FIXED}, meanwhile", yardstick.text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--only", choices=("burst", "heartbeats"))
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=10_000, help="That only report.")
    chosen = parser.parse_args()
    if chosen.write and chosen.only:
        parser.error("--write replaces the whole table: not with --only")
    found = Found()
    load = os.getloadavg()[0]
    with durable_servers() as (mariadb, broker):
        if chosen.only != "heartbeats":
            with make_cluster(mariadb, broker, options=OPTIONS) as cluster:
                clients = [Client(), Client()]
                try:
                    measure(cluster, clients, chosen.servers, found)
                finally:
                    for client in clients:
                        client.close()
        if chosen.only != "burst":
            heartbeats(mariadb, broker, found, chosen.hosts, RESTING)
    text = (
        f"Measured on {dt.datetime.now(dt.UTC):%Y-%m-%d}, {psutil.cpu_count()} CPUs,"
        f" {psutil.virtual_memory().total / (1 << 30):.0f} GiB, CPython {platform.python_version()}; the machine's load"
        f" average before the run was {load:.1f}.\n\n{found.table()}"
    )
    print("\n" + text)
    if chosen.write:
        write("cluster", text)


def measure(cluster: Cluster, clients: list[Client], count: int, found: Found) -> None:
    first: Member = cluster.of("api")[0]
    memory(cluster, found, "idle")
    flavor = {"flavor": {"name": "bench", "id": "bench", "ram": 64, "vcpus": 1, "disk": 0}}
    for client, api in zip(clients, cluster.of("api"), strict=True):
        # So that each API process knows the token.
        client.send(api.port, [request("GET", "/flavors")], count=1)
    clients[0].send(first.port, [request("POST", "/flavors", flavor)], count=1)
    yardstick = Yardstick()
    yardstick.take()
    burst(cluster, clients, count, found)
    yardstick.take()
    for _ in range(10):
        for client, api in zip(clients, cluster.of("api"), strict=True):
            client.begin(api.port, [request("GET", "/servers/detail?limit=1000")], connections=4, count=8)
        for client in clients:
            client.result()
    memory(cluster, found, "after creates and lists of 1,000 servers")
    yardstick.take()
    cluster.query("DELETE FROM instances ORDER BY id LIMIT " + str(count - 100))
    few = lists(cluster, clients[0], found, "100 servers in the database")
    yardstick.take()
    multiply(cluster, MANY)
    many = lists(cluster, clients[0], found, f"{MANY:,} servers in the database")
    yardstick.take()
    ratios = ", ".join(f"{what} {many[what] / few[what]:.2f}" for what in few)
    found.add(f"cost with {MANY:,} : 100 servers, by those times", ratios)
    found.add(f"{FIXED}, between these", yardstick.text())


if __name__ == "__main__":
    main()
