"""Metrics and traces of roles as processes: what a kill looks like from outside, and one boot as one trace."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.cluster import IMAGE, Cluster, Member, make_cluster
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker

pytestmark = pytest.mark.timeout(300)

ADMIN = "root:6f70656e737461636b20342065766572:admin,member,reader"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class Collector:
    """Takes spans as OTLP over HTTP: (service, name, id, parent) of each."""

    port: int = 0
    spans: list[tuple[str, str, str, str]] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if span.trace_id.hex() == TRACE:
                        ids = span.span_id.hex(), span.parent_span_id.hex()
                        self.spans.append((names["service.name"], span.name, *ids))


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def cluster(mariadb: MariaDB, broker: Broker, collector: Collector) -> Iterator[Cluster]:
    options = {
        "DEFAULT": {"report_interval": 1},
        "conductor": {"lease": 5},
        "sim": {"durations": "disks:0.2,running:2.0"},
        "prometheus": {"enabled": True},
        "tracing": {"otlp_endpoint": f"http://127.0.0.1:{collector.port}"},
    }
    # The last of each of these is asked nothing: it has what every role has.
    counts = {"api": 1, "conductor": 2, "scheduler": 1, "compute": 1, "metadata": 1, "consoleauth": 1, "cert": 1}
    with make_cluster(mariadb, broker, counts=counts, hosts=2, options=options) as made:
        yield made


def metrics_of(member: Member) -> str:
    """What the process shows, at the port that its log says."""
    served = [json.loads(line) for line in member.log.read_text().splitlines() if '"metrics.served"' in line]
    with urllib.request.urlopen(f"http://127.0.0.1:{served[-1]['port']}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def value(member: Member, series: str) -> float:
    """The sum of all samples that begin so."""
    found = re.findall(rf"^{re.escape(series)}[^ ]* (\S+)$", metrics_of(member), re.M)
    return sum(map(float, found))


def wait_for(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def api(cluster: Cluster) -> Iterator[httpx.Client]:
    headers = {"X-Auth-Token": ADMIN, "OpenStack-API-Version": "compute 2.90"}
    port = cluster.of("api")[0].port
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/v2.1", headers=headers, timeout=30) as client:
        flavor = {"flavor": {"name": "tiny", "id": "tiny", "ram": 64, "vcpus": 1, "disk": 0}}
        assert client.post("/flavors", json=flavor).status_code in (200, 409)
        yield client


def create(api: httpx.Client, name: str, *, flavor: str = "tiny", fail: str = "", **headers: str) -> str:
    """`fail`: see `sim:fail_at`."""
    body = {"server": {"name": name, "flavorRef": flavor, "imageRef": IMAGE, "networks": "none"}}
    if fail:
        body["server"]["metadata"] = {"sim:fail_at": fail}
    answer = api.post("/servers", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["server"]["id"])


def active(api: httpx.Client, server: str) -> bool:
    return status(api, server) == "ACTIVE"


def status(api: httpx.Client, server: str) -> str:
    return str(api.get(f"/servers/{server}").json()["server"]["status"])


BOOT = 'kind="boot",outcome="done"'
WORK = {
    "api": (
        'kilonova_requests_total{method="POST",route="/servers",service="compute",status="202"}',
        'kilonova_requests_total{method="GET",route="/servers/{id}",service="compute",status="404"}',
        'kilonova_request_seconds_sum{method="POST",route="/servers",service="compute"}',
    ),
    "scheduler": (
        'kilonova_scheduler_decisions_total{outcome="placed"}',
        'kilonova_scheduler_decisions_total{outcome="no_valid_host"}',
        "kilonova_scheduler_decision_seconds_sum",
        "kilonova_scheduler_picture_age_seconds",
        "kilonova_scheduler_picture_hosts",
    ),
    "conductor": (
        f"kilonova_operations_total{{{BOOT}}}",
        'kilonova_operations_total{kind="boot",outcome="failed"}',
        f"kilonova_operation_seconds_sum{{{BOOT}}}",
        'kilonova_operation_wait_seconds_sum{kind="boot"}',
        'kilonova_step_seconds_sum{kind="boot",outcome="done",phase="do",step="build"}',
        'kilonova_step_seconds_sum{kind="boot",outcome="failed",phase="do",step="build"}',
        'kilonova_step_seconds_sum{kind="boot",outcome="done",phase="undo",step="build"}',
        'kilonova_step_repeats_total{kind="boot",reason="transient",step="build"}',
    ),
    "compute": (
        'kilonova_agent_commands_total{outcome="done",verb="boot"}',
        'kilonova_agent_commands_total{outcome="invalid",verb="boot"}',
        'kilonova_agent_command_seconds_sum{verb="boot"}',
    ),
}
"""By role, what there is after servers were made, and some were refused by a scheduler and by a host."""


def test_each_role_counts_what_it_does(cluster: Cluster, api: httpx.Client) -> None:
    huge = {"flavor": {"name": "huge", "id": "huge", "ram": 1 << 30, "vcpus": 1, "disk": 0}}
    assert api.post("/flavors", json=huge).status_code in (200, 409)
    conductors, (host,) = cluster.of("conductor"), cluster.of("compute")
    # Nothing that was begun comes to its end before it was looked at.
    os.kill(host.pid, signal.SIGSTOP)
    try:
        servers = [
            create(api, "made"), create(api, "too much", flavor="huge"),
            create(api, "broken", fail="disks:1:transient,defined:1:invalid"),
        ]  # fmt: skip
        wait_for(lambda: all(value(each, 'kilonova_queue_length{queue="running"}') > 0 for each in conductors))
        wait_for(lambda: all(value(each, 'kilonova_queue_age_seconds{queue="running"}') > 0 for each in conductors))
    finally:
        os.kill(host.pid, signal.SIGCONT)
    wait_for(lambda: [status(api, server) for server in servers] == ["ACTIVE", "ERROR", "ERROR"])
    assert api.get("/servers/nobody").status_code == 404
    for role, wanted in WORK.items():
        for series in wanted:
            # An operation's end is counted after it is to be seen.
            wait_for(lambda role=role, series=series: sum(value(each, series) for each in cluster.of(role)) > 0)  # type: ignore[misc]


def test_every_process_tells_what_it_is_and_when_it_stood_still(cluster: Cluster) -> None:
    for member in cluster.members.values():
        assert value(member, f'kilonova_role_info{{role="{member.role}"') == 1
        assert value(member, "process_resident_memory_bytes") > 0
        assert value(member, "process_cpu_seconds_total") > 0
        before = value(member, "kilonova_loop_stall_seconds_sum"), value(member, "kilonova_loop_stalls_total")
        os.kill(member.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(member.pid, signal.SIGCONT)
        wait_for(lambda member=member, before=before: value(member, "kilonova_loop_stalls_total") > before[1])  # type: ignore[misc]
        assert value(member, "kilonova_loop_stall_seconds_sum") - before[0] > 0.02


def test_one_boot_is_one_trace_through_all_processes(cluster: Cluster, api: httpx.Client, collector: Collector) -> None:
    server = create(api, "traced", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    wait_for(lambda: active(api, server))
    wanted = {
        ("kilonova-api", "POST /servers"),
        ("kilonova-scheduler", "scheduler: place"),
        ("kilonova-conductor", "boot: schedule"),
        ("kilonova-conductor", "boot: build"),
        ("kilonova-conductor", "operation boot"),
        ("kilonova-compute", "host: boot"),
        ("kilonova-compute", "driver: ensure_running"),
    }
    wait_for(lambda: wanted <= {(service, name) for service, name, _, _ in collector.spans})
    ids = {span_id: (name, parent) for _, name, span_id, parent in collector.spans}
    (at,) = [span_id for span_id, (name, _) in ids.items() if name == "driver: ensure_running"]
    way = []
    while at in ids:
        name, at = ids[at]
        way.append(name)
    assert way[::-1] == ["POST /servers", "operation boot", "boot: build", "host: boot", "driver: ensure_running"]


def test_a_killed_conductors_work_shows_as_taken_over(cluster: Cluster, api: httpx.Client) -> None:
    servers = [create(api, f"killed-{number}") for number in range(6)]
    first, second = cluster.of("conductor")
    wait_for(lambda: max(value(each, "kilonova_operations_running") for each in (first, second)) >= 1)
    victim, left = (first, second) if value(first, "kilonova_operations_running") else (second, first)
    before = value(left, "kilonova_lease_takeovers_total")
    cluster.kill(victim)
    wait_for(lambda: value(left, "kilonova_lease_takeovers_total") > before)
    wait_for(lambda: all(active(api, server) for server in servers))
    shown = "".join(
        subprocess.run(
            [sys.executable, "-m", "kilonova.cli", "trace", server, "--config-file", str(left.config)],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for server in servers
    )  # fmt: skip
    # A step that had been begun is done anew: what lies in between is the lease of the dead.
    assert "until another conductor took it" in shown
    cluster.start(victim)
