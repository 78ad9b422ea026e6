"""The tracer on OpenTelemetry's SDK, which the extra `otel` brings."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import secrets
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from kilonova.tracing import Attributes, Kind, Span

_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_given: ContextVar[int | None] = ContextVar("given_span_id", default=None)


class _Ids(IdGenerator):
    """Random ids, but for spans whose id is known beforehand."""

    def generate_span_id(self) -> int:
        return _given.get() or secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        return secrets.randbits(128) or 1

    def is_trace_id_random(self) -> bool:
        return True


def _nanoseconds(at: dt.datetime) -> int:
    return int(at.replace(tzinfo=dt.UTC).timestamp() * 1e9)


class OtelSpan:
    """See `kilonova.tracing.Span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        context = self._span.get_span_context()
        if not context.trace_flags.sampled:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, message: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, message))

    def end(self, at: dt.datetime | None = None) -> None:
        self._span.end(None if at is None else _nanoseconds(at))


class OtelTracer:
    """Sends ended spans to `processor`; keeps `ratio` of the traces that begin here (1.0: all)."""

    def __init__(self, processor: SpanProcessor, role: str, ratio: float = 1.0) -> None:
        version = importlib.metadata.version("kilonova")
        self._provider = TracerProvider(
            resource=Resource.create(
                {"service.namespace": "kilonova", "service.name": f"kilonova-{role}", "service.version": version}
            ),
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            id_generator=_Ids(),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("kilonova", version)

    def begin(
        self,
        name: str,
        parent: str | None,
        kind: Kind,
        attributes: Attributes,
        *,
        at: dt.datetime | None = None,
        span_id: int | None = None,
    ) -> Span:
        token = _given.set(span_id)
        try:
            span = self._tracer.start_span(
                name,
                context=trace.set_span_in_context(_remote(parent)),
                kind=_KINDS[kind],
                attributes=attributes,
                start_time=None if at is None else _nanoseconds(at),
            )
        finally:
            _given.reset(token)
        return OtelSpan(span)

    def close(self) -> None:
        self._provider.shutdown()


def _remote(parent: str | None) -> trace.Span:
    if parent is None:
        return trace.INVALID_SPAN
    _, trace_id, span_id, flags = parent.split("-")
    return NonRecordingSpan(
        SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    )


def over_http(endpoint: str, role: str, ratio: float) -> OtelTracer:
    """A tracer whose spans go to a collector by OTLP over HTTP, in batches from a thread of their own."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
    return OtelTracer(BatchSpanProcessor(exporter), role, ratio)
