"""Spans from a request to the driver's verbs, as OpenTelemetry has them; off, they cost a comparison each.

What goes from role to role is a W3C `traceparent`: in from the request's header, kept
with the operation, along on the bus. Only `otel.py` knows the SDK, which is an extra.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Literal, Protocol

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

_NONE: Attributes = {}
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Span(Protocol):
    """One that has begun."""

    @property
    def traceparent(self) -> str | None:
        """For those that come under it; None where the trace is not kept."""
        ...

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Attributes) -> None: ...

    def fail(self, message: str) -> None: ...

    def end(self, at: dt.datetime | None = None) -> None: ...


class Tracer(Protocol):
    def begin(
        self,
        name: str,
        parent: str | None,
        kind: Kind,
        attributes: Attributes,
        *,
        at: dt.datetime | None = None,
        span_id: int | None = None,
    ) -> Span: ...

    def close(self) -> None:
        """Send what has ended; takes seconds where nobody takes it."""
        ...


class _Off:
    """The span of those that are not traced."""

    traceparent = None

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Attributes) -> None: ...

    def fail(self, message: str) -> None: ...

    def end(self, at: dt.datetime | None = None) -> None: ...


_OFF = _Off()
_NOTHING: contextlib.AbstractContextManager[Span] = contextlib.nullcontext(_OFF)
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Trace from now on in this process, or (None) no more."""
    global _tracer
    _tracer = tracer


def on() -> bool:
    return _tracer is not None


def traceparent() -> str | None:
    """Of the span under way; None where there is none, or its trace is not kept."""
    return None if _tracer is None else _current.get()


def valid(text: str | None) -> str | None:
    """A traceparent as it came from outside, or None for what is none."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def span(
    name: str, parent: str | None, attributes: Attributes = _NONE, *, kind: Kind = "internal"
) -> contextlib.AbstractContextManager[Span]:
    """A span under `parent` while the block runs; without a parent nothing in it is traced."""
    if _tracer is None:
        return _NOTHING
    return _running(None if parent is None else _tracer.begin(name, parent, kind, attributes))


def root(
    name: str, parent: str | None, attributes: Attributes = _NONE, *, kind: Kind = "server"
) -> contextlib.AbstractContextManager[Span]:
    """As `span`, but without a parent a trace begins here."""
    return _NOTHING if _tracer is None else _running(_tracer.begin(name, parent, kind, attributes))


@contextlib.contextmanager
def _running(begun: Span | None) -> Iterator[Span]:
    token = _current.set(None if begun is None else begun.traceparent)
    try:
        yield begun or _OFF
    except BaseException as error:
        if begun is not None:
            begun.fail(type(error).__name__)
        raise
    finally:
        _current.reset(token)
        if begun is not None:
            begun.end()


def of_operation(parent: str | None, operation_id: int) -> str | None:
    """The traceparent of an operation's span, which is the same for whoever runs it.

    The span itself is sent at the end, by the process that comes to it (`operation`); so the steps of one that
    died stand under it as well.
    """
    if _tracer is None or parent is None:
        return None
    return f"{parent[:36]}{_operation_span(parent, operation_id):016x}-{parent[-2:]}"


def operation(
    name: str,
    parent: str | None,
    operation_id: int,
    begun: dt.datetime,
    attributes: Attributes = _NONE,
    error: str | None = None,
) -> None:
    """Send the span of an operation that began at `begun` (UTC) and ends now."""
    if _tracer is None or parent is None:
        return
    span_id = _operation_span(parent, operation_id)
    made = _tracer.begin(name, parent, "internal", attributes, at=begun, span_id=span_id)
    if error is not None:
        made.fail(error)
    made.end()


def _operation_span(parent: str, operation_id: int) -> int:
    digest = hashlib.blake2b(f"{parent[3:35]}/{operation_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
