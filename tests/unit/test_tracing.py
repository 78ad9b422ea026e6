"""One boot is one trace, from the request to the driver's verbs; without tracing nothing of it is stored or sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kilonova import config, tracing
from kilonova.db.tables import operations
from kilonova.engine import store
from kilonova.errors import Invalid
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud
from kilonova.testing.identity import PROJECT
from kilonova.testing.network import FakeNetworking
from kilonova.tracing.otel import OtelTracer
from tests.support.port_servers import IMAGE, booted, create, settled

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
KEPT_NOT = f"00-{TRACE}-b7ad6b7169203331-00"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(SimpleSpanProcessor(exporter), "test")
    tracing.use(tracer)
    yield exporter
    tracing.use(None)
    tracer.close()


def by_id(spans: Sequence[ReadableSpan]) -> dict[int, ReadableSpan]:
    return {span.context.span_id: span for span in spans}


def way(span: ReadableSpan, known: dict[int, ReadableSpan]) -> list[str]:
    """The names from the root to this span."""
    names = [span.name]
    while span.parent is not None and span.parent.span_id in known:
        span = known[span.parent.span_id]
        names.append(span.name)
    return names[::-1]


async def traced(api: Client, parent: str, networks: Any = "auto", **more: Any) -> dict[str, Any]:
    body = {"server": {"name": "s", "imageRef": IMAGE, "flavorRef": "1", "networks": networks, **more}}
    headers = {"traceparent": parent}
    answer = await api("POST", "/servers", body, token="member", version="2.90", headers=headers)
    assert answer.status_code == 202, answer.text
    return await settled(api, answer.json()["server"]["id"])


async def stored(cloud: TestCloud) -> list[str | None]:
    async def work(tx: store.Tx) -> list[str | None]:
        return [row.traceparent for row in await tx.execute(sa.select(operations.c.traceparent))]

    return await cloud.rt.db.read(work)


async def test_a_boot_is_one_trace_from_the_request_to_the_drivers_verbs(
    cloud: TestCloud, api: Client, network: FakeNetworking, spans: InMemorySpanExporter
) -> None:
    network.add_network("net", project_id=PROJECT)
    spans.clear()
    server = await traced(api, PARENT)
    assert server["status"] == "ACTIVE"
    await cloud.conductor.engine.idle()
    mine = [span for span in spans.get_finished_spans() if f"{span.context.trace_id:032x}" == TRACE]
    known = by_id(mine)
    ways = [" / ".join(way(span, known)) for span in mine]
    run = "POST /servers / operation boot_with_ports"
    for expected in (
        "POST /servers",
        run,
        f"{run} / boot_with_ports: schedule",
        f"{run} / boot_with_ports: schedule / scheduler: place",
        f"{run} / boot_with_ports: ports",
        f"{run} / boot_with_ports: build / host: prepare / driver: ensure_image",
        f"{run} / boot_with_ports: build / host: prepare / driver: ensure_defined",
        f"{run} / boot_with_ports: build / host: prepare / driver: ensure_plugged",
        f"{run} / boot_with_ports: build / host: start / driver: ensure_running",
    ):
        assert ways.count(expected) == 1, ways
    # Nothing hangs in the air: all but the request have their parent in the trace.
    (request,) = [span for span in mine if span.name == "POST /servers"]
    assert request.parent is not None
    assert request.parent.span_id == int(PARENT.split("-")[2], 16)
    assert [span.name for span in mine if span.parent is None or span.parent.span_id not in known] == ["POST /servers"]
    assert (request.attributes or {})["http.response.status_code"] == 202
    (operation,) = [span for span in mine if span.name == "operation boot_with_ports"]
    for span in mine:
        if span.name.startswith("boot_with_ports: "):
            assert operation.start_time <= span.start_time <= span.end_time <= operation.end_time


async def test_a_failure_marks_its_spans_and_the_undoing_is_shown(
    cloud: TestCloud, api: Client, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    server = await traced(api, PARENT, "none", metadata={"sim:fail_at": "defined:1:invalid"})
    assert server["status"] == "ERROR"
    await cloud.conductor.engine.idle()
    failed = {span.name for span in spans.get_finished_spans() if not span.status.is_ok and span.status.description}
    assert {"operation boot", "boot: build", "host: boot", "driver: ensure_defined"} <= failed
    names = [span.name for span in spans.get_finished_spans()]
    assert names.index("boot: build") < names.index("boot: undo build") < names.index("boot: undo schedule")


async def test_another_conductor_goes_on_with_the_trace(
    cloud: TestCloud, api: Client, spans: InMemorySpanExporter
) -> None:
    """The operation's span has the same id for whoever runs it, so steps of a dead process have a parent too."""
    await cloud.conductor.engine.stop()
    spans.clear()
    headers = {"traceparent": PARENT}
    body = {"server": {"name": "s", "imageRef": IMAGE, "flavorRef": "1", "networks": "none"}}
    answer = await api("POST", "/servers", body, version="2.90", headers=headers)
    ((operation_id, lost),) = await store.claimable(cloud.rt.db, 10)
    assert not lost
    await store.claim(cloud.rt.db, operation_id, "killed", -1.0)
    cloud.conductor.engine._stopping = False
    await cloud.conductor.engine.start()
    assert (await settled(api, answer.json()["server"]["id"]))["status"] == "ACTIVE"
    await cloud.conductor.engine.idle()
    mine = [span for span in spans.get_finished_spans() if f"{span.context.trace_id:032x}" == TRACE]
    ways = [" / ".join(way(span, by_id(mine))) for span in mine]
    assert "POST /servers / operation boot / boot: build / host: boot / driver: ensure_running" in ways


async def test_without_a_parent_a_trace_begins_here(api: Client, spans: InMemorySpanExporter) -> None:
    await api("GET", "/servers")
    await api("GET", "/servers", headers={"traceparent": "not one"})
    first, second = [span for span in spans.get_finished_spans() if span.name == "GET /servers"]
    assert first.parent is None
    assert second.parent is None
    assert first.context.trace_id != second.context.trace_id


async def test_a_trace_that_is_not_kept_leaves_nothing_behind(
    cloud: TestCloud, api: Client, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    server = await traced(api, KEPT_NOT, "none")
    assert server["status"] == "ACTIVE"
    assert [span for span in spans.get_finished_spans() if f"{span.context.trace_id:032x}" == TRACE] == []
    assert await stored(cloud) == [None]


async def test_off_nothing_is_stored_or_sent(cloud: TestCloud, api: Client) -> None:
    server = await traced(api, PARENT, "none")
    assert server["status"] == "ACTIVE"
    assert await stored(cloud) == [None]
    assert tracing.traceparent() is None


async def test_operations_of_requests_that_are_not_traced_do_not_end_up_in_another_trace(
    cloud: TestCloud, api: Client, spans: InMemorySpanExporter
) -> None:
    """The bus in one process hands its tasks the context of the sender."""
    tracing.use(None)
    await cloud.conductor.engine.stop()
    answer = await create(api, "none")
    ((operation_id, _),) = await store.claimable(cloud.rt.db, 10)
    tracing.use(OtelTracer(SimpleSpanProcessor(spans), "test"))
    spans.clear()
    cloud.conductor.engine._stopping = False
    with tracing.root("somebody else's", None):
        cloud.conductor.engine.wake(operation_id)
    assert (await settled(api, answer.json()["server"]["id"]))["status"] == "ACTIVE"
    await cloud.conductor.engine.idle()
    assert not [span for span in spans.get_finished_spans() if span.name.startswith(("boot", "host", "driver"))]


async def test_a_server_that_boots_untraced_is_the_same(api: Client, spans: InMemorySpanExporter) -> None:
    assert (await booted(api, "none"))["status"] == "ACTIVE"


def test_tracing_follows_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.tracer(config.load([]), "api") is None
    path = tmp_path / "nova.conf"
    path.write_text("[tracing]\notlp_endpoint = http://127.0.0.1:9\nsample_ratio = 0\n")
    tracer = config.tracer(config.load([path]), "api")
    assert tracer is not None
    assert tracer.begin("x", None, "server", {}).traceparent is None
    tracer.close()
    monkeypatch.setitem(__import__("sys").modules, "kilonova.tracing.otel", None)
    with pytest.raises(Invalid, match=r"otlp_endpoint.*kilonova\[otel\]"):
        config.tracer(config.load([path]), "api")
