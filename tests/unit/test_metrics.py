"""What /metrics shows moves when its cause happens, with labels that are bounded."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import socket
import time
from collections.abc import Callable

import httpx
import pytest
import structlog

from kilonova.agent.commands import VERBS
from kilonova.api.routes import ROUTES
from kilonova.engine import queues, store
from kilonova.errors import Invalid
from kilonova.metrics import REGISTRY, MetricsSettings, families, serving
from kilonova.metrics.listener import FRESH, PORTS, STRIDE
from kilonova.metrics.loop import QUIET, TICK, LoopWatch
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud
from kilonova.testing.network import FakeNetworking
from kilonova.workflows import ALL
from tests.support.port_servers import booted, create, gone, settled

Labels = dict[str, str]
OPERATION_FAMILIES = (
    families.OPERATIONS,
    families.OPERATION_SECONDS,
    families.OPERATION_WAIT_SECONDS,
    families.STEP_SECONDS,
    families.STEP_REPEATS,
    families.FENCED,
    families.TAKEOVERS,
)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def moved(name: str, **labels: str) -> Callable[[], float]:
    """How far a metric has gone from here."""
    before = value(name, **labels)
    return lambda: value(name, **labels) - before


def labels_of(prefix: str) -> list[Labels]:
    return [s.labels for family in REGISTRY.collect() for s in family.samples if s.name.startswith(prefix)]


async def test_requests_are_counted_by_route_and_status(api: Client) -> None:
    unknown = "99999999-9999-9999-9999-999999999999"
    show = {"service": "compute", "method": "GET", "route": "/servers/{id}"}
    missed = moved("kilonova_requests_total", **show, status="404")
    timed = moved("kilonova_request_seconds_count", **show)
    acted = moved(
        "kilonova_requests_total", service="compute", method="POST", route="/servers/{id}/action#reboot", status="404"
    )
    refused = moved("kilonova_requests_total", service="compute", method="GET", route="(none)", status="401")
    await api("GET", f"/servers/{unknown}")
    await api("POST", f"/servers/{unknown}/action", {"reboot": {"type": "SOFT"}})
    await api("GET", "/servers", token=None)
    assert (missed(), timed(), acted(), refused()) == (1, 1, 1, 1)


async def test_labels_of_requests_are_routes_and_never_paths(api: Client) -> None:
    documents = {"/", "/v2", "/v2/", "/v2.1", "/v2.1/", "/healthcheck"}
    templates = {operation.template for operation in ROUTES} | documents | {"(none)", "metadata"}
    for path in ("/servers/a1b2", "/servers/a1b2/ips", "/nowhere/a1b2", "/flavors/a1b2/os-extra_specs/a1b2"):
        await api("GET", path)
    healthy = moved("kilonova_requests_total", service="compute", method="GET", route="/healthcheck", status="200")
    await api("GET", "/healthcheck")
    assert healthy() == 1
    await api("BREW", "/servers/a1b2")
    await api("POST", "/servers/a1b2/action", {"a1b2": None})
    found = labels_of("kilonova_request")
    assert {labels["route"] for labels in found} <= templates
    assert "(other)" in {labels["method"] for labels in found}
    assert not [labels for labels in found if "a1b2" in str(labels)]


async def test_a_boot_is_counted_in_all_roles(cloud: TestCloud, api: Client, network: FakeNetworking) -> None:
    network.add_network("net", project_id="6f70656e737461636b20342065766572")
    kind = "boot_with_ports"
    done = moved("kilonova_operations_total", kind=kind, outcome="done")
    timed = moved("kilonova_operation_seconds_count", kind=kind, outcome="done")
    waited = moved("kilonova_operation_wait_seconds_count", kind=kind)
    steps = [
        moved("kilonova_step_seconds_count", kind=kind, step=step, phase="do", outcome="done")
        for step in ("schedule", "ports", "build")
    ]
    placed = moved("kilonova_scheduler_decisions_total", outcome="placed")
    computed = moved("kilonova_scheduler_decision_seconds_count")
    commands = [moved("kilonova_agent_commands_total", verb=verb, outcome="done") for verb in ("prepare", "start")]
    await booted(api)
    await cloud.conductor.engine.idle()
    assert [move() for move in (done, timed, waited, *steps, placed, *commands)] == [1] * 9
    assert computed() >= 1
    assert value("kilonova_scheduler_picture_hosts") == 1
    assert 0 <= value("kilonova_scheduler_picture_age_seconds") < 60
    assert value("kilonova_agent_commands_open") == 0


async def test_failures_and_tries_are_counted(cloud: TestCloud, api: Client) -> None:
    failed = moved("kilonova_operations_total", kind="boot", outcome="failed")
    step = moved("kilonova_step_seconds_count", kind="boot", step="build", phase="do", outcome="failed")
    undone = moved("kilonova_step_seconds_count", kind="boot", step="build", phase="undo", outcome="done")
    again = moved("kilonova_step_repeats_total", kind="boot", step="build", reason="transient")
    invalid = moved("kilonova_agent_commands_total", verb="boot", outcome="invalid")
    faults = {"sim:fail_at": "disks:1:transient,defined:1:invalid"}
    answer = await create(api, "none", metadata=faults)
    assert (await settled(api, answer.json()["server"]["id"]))["status"] == "ERROR"
    await cloud.conductor.engine.idle()
    assert (failed(), step(), undone(), again(), invalid()) == (1, 1, 1, 1, 1)


async def test_refusals_of_the_scheduler_are_counted(api: Client) -> None:
    refused = moved("kilonova_scheduler_decisions_total", outcome="no_valid_host")
    big = {"flavor": {"name": "big", "id": "2", "ram": 512, "vcpus": 1, "disk": 10**6}}
    assert (await api("POST", "/flavors", big)).status_code == 200
    answer = await create(api, "none", flavorRef="2")
    assert (await settled(api, answer.json()["server"]["id"]))["status"] == "ERROR"
    assert refused() == 1


async def test_labels_of_operations_and_commands_are_known_names(cloud: TestCloud, api: Client) -> None:
    # Other tests of this process have workflows and verbs of their own.
    for family in (*OPERATION_FAMILIES, families.COMMANDS, families.COMMAND_SECONDS):
        family.clear()
    server = await booted(api, "none")
    await gone(api, server["id"])
    await cloud.conductor.engine.idle()
    kinds = {name: {step.name for step in workflow.steps} for name, workflow in ALL.items()}
    for labels in labels_of("kilonova_step_seconds"):
        assert labels["step"] in kinds[labels["kind"]]
        assert (labels["phase"], labels["outcome"]) in (
            ("do", "done"), ("do", "failed"), ("do", "stuck"), ("undo", "done"), ("undo", "stuck"),
        )  # fmt: skip
    for labels in [*labels_of("kilonova_operation"), *labels_of("kilonova_lease_takeovers")]:
        assert labels.get("kind", "boot") in kinds
        assert labels.get("outcome", "done") in ("done", "failed", "stuck")
    for labels in labels_of("kilonova_agent_command_seconds"):
        assert labels["verb"] in {*VERBS, "(other)"}


async def test_what_a_dead_conductor_had_counts_as_taken_over(cloud: TestCloud, api: Client) -> None:
    server = await booted(api, "none")
    over = moved("kilonova_lease_takeovers_total", kind="stop")
    fenced = moved("kilonova_operations_fenced_total", kind="stop")
    db = cloud.rt.db
    await cloud.conductor.engine.stop()
    assert (await api("POST", f"/servers/{server['id']}/action", {"os-stop": None})).status_code == 202
    (operation_id,) = [each for each, _ in await store.claimable(db, 10)]
    # Killed after it had claimed: nobody gives the lease back.
    killed = await store.claim(db, operation_id, "killed", 30.0)
    assert killed is not None
    await queues.probe(db, cloud.rt.world)()
    assert value("kilonova_queue_length", queue="running") == 1
    assert await store.claimable(db, 10) == []
    await store.renew(db, "killed", [operation_id], -1.0)
    await queues.probe(db, cloud.rt.world)()
    assert (value("kilonova_queue_length", queue="lost"), value("kilonova_queue_length", queue="running")) == (1, 0)
    cloud.conductor.engine._stopping = False
    await cloud.conductor.engine.start()
    for _ in range(400):
        found = await store.outcome(db, operation_id)
        if found is not None and found[0] == "done":
            break
        await asyncio.sleep(0.02)
    assert (over(), fenced(), killed.kind) == (1, 0, "stop")
    # An operation that was never lost is not counted.
    assert (await api("POST", f"/servers/{server['id']}/action", {"os-start": None})).status_code == 202
    await settled(api, server["id"])
    assert over() == 1


async def test_queues_tell_their_length_and_age(cloud: TestCloud) -> None:
    await cloud.conductor.engine.stop()
    world, db = cloud.rt.world, cloud.rt.db

    async def work(tx: store.Tx) -> None:
        for state, age in (("ready", 100.0), ("ready", 50.0), ("queued", 7.0)):
            await store.insert(
                tx, kind="boot", action="create", server_uuid="s", project_id="p", user_id="u", request_id="r",
                now=world.now() - dt.timedelta(seconds=age), state=state,
            )  # fmt: skip

    await db.write(work)
    await queues.probe(db, world)()
    assert [value("kilonova_queue_length", queue=queue) for queue in queues.QUEUES] == [2, 1, 0, 0, 0]
    ages = [value("kilonova_queue_age_seconds", queue=queue) for queue in queues.QUEUES]
    assert [int(age // 10) for age in ages] == [10, 0, 0, 0, 0]
    assert ages[1] >= 7


async def ask(port: int, text: str) -> tuple[str, str]:
    """A request's head and what is answered: head and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def test_the_listener_shows_metrics_and_nothing_else() -> None:
    asked: list[float] = []

    async def probe() -> None:
        asked.append(1.0)
        raise RuntimeError("the database does not answer")

    async with serving(MetricsSettings(port=0), "scheduler", probes=[probe]) as listener:
        assert listener is not None
        port = listener.address[1]
        async with httpx.AsyncClient() as http:
            for _ in range(2):
                answer = await http.get(f"http://127.0.0.1:{port}/metrics")
                assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
        assert re.search(r'^kilonova_role_info\{role="scheduler",version="[^"]+"\} 1\.0$', answer.text, re.M)
        assert "process_resident_memory_bytes" in answer.text
        # However many ask, a probe that costs something is asked once in a while.
        assert len(asked) == 1
        assert FRESH > 1
        assert (await ask(port, "GET / HTTP/1.1\r\n\r\n"))[0].startswith("HTTP/1.1 404 ")
        assert (await ask(port, "POST /metrics HTTP/1.1\r\n\r\n"))[0].startswith("HTTP/1.1 405 ")
        head, body = await ask(port, "HEAD /metrics HTTP/1.1\r\n\r\n")
        assert (head.startswith("HTTP/1.1 200 "), body) == (True, "")
        assert await ask(port, "x" * 20_000 + "\r\n\r\n") == ("", "")
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)
    assert not [labels for labels in labels_of("kilonova_role_info") if labels["role"] == "scheduler"]


async def test_a_second_process_of_a_role_finds_a_port_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        async with serving(MetricsSettings(), "conductor", first=first) as listener:
            assert listener is not None
            assert listener.address[1] in {first + STRIDE * n for n in range(1, 10)}
        with pytest.raises(Invalid, match=rf"\[prometheus\] listen 127\.0\.0\.1, port {first}: Address already in use"):
            async with serving(MetricsSettings(port=first), "conductor"):
                pass


async def test_it_can_be_switched_off() -> None:
    async with serving(MetricsSettings(enabled=False), "api") as listener:
        assert listener is None


def test_no_two_roles_share_a_port() -> None:
    assert len(set(PORTS.values())) == len(PORTS) < STRIDE


def spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize(("cause", "hold_up"), [("busy", spin), ("waiting", time.sleep)])
async def test_stalls_of_the_loop_are_counted_by_their_cause(cause: str, hold_up: Callable[[float], None]) -> None:
    counted = moved("kilonova_loop_stalls_total", cause=cause)
    seconds = moved("kilonova_loop_stall_seconds_sum")
    watch = LoopWatch()
    watch.start()
    try:
        await asyncio.sleep(0)
        for _ in range(60):  # a busy machine can make a wait of what was work, and a collector work of a wait
            hold_up(0.3)
            await asyncio.sleep(0.1)
            if counted() >= 1:
                break
        assert counted() >= 1
        assert seconds() > 0.2
    finally:
        watch.stop()


async def test_a_loop_with_nothing_to_do_is_left_alone_and_one_at_work_is_watched_closely() -> None:
    watch = LoopWatch()
    watch.start()
    try:
        for _ in range(600):  # a busy machine takes the time for stalls
            await asyncio.sleep(0.05)
            if watch._wait == QUIET:
                break
        assert watch._wait == QUIET
        began = time.thread_time()
        while time.thread_time() - began < 0.3:
            pass
        await asyncio.sleep(0)
        for _ in range(100):
            if watch._wait == TICK:
                break
            await asyncio.sleep(0)
        assert watch._wait == TICK
    finally:
        watch.stop()


async def test_a_long_stall_is_reported_with_the_code_that_ran() -> None:
    watch = LoopWatch()
    with structlog.testing.capture_logs() as logged:
        watch.start()
        try:
            await asyncio.sleep(0)
            time.sleep(1.5)  # noqa: ASYNC251  # what must not be done is what is to be noticed
            await asyncio.sleep(0.1)
        finally:
            watch.stop()
    (report,) = [entry for entry in logged if entry["event"] == "loop.held_up"]
    assert report["seconds"] > 1.0
    assert "test_a_long_stall_is_reported_with_the_code_that_ran" in report["where"]
