"""All metrics. Durations in seconds.

Where something is counted often its label values are looked up once and kept: that halves the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import prometheus_client as prometheus
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)
prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs
prometheus.ProcessCollector(registry=REGISTRY)
prometheus.GCCollector(registry=REGISTRY)

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds for what a client waits for."""
SLOW = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800)
"""Bounds for work with guests."""
TINY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1)
"""Bounds for computing."""
STALLS = (0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

NO_ROUTE = "(none)"
"""Route of requests that were refused before one was found."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

ROLE = Gauge("kilonova_role_info", "1 for each role that runs in this process", ["role", "version"], registry=REGISTRY)

REQUESTS = Counter(
    "kilonova_requests_total", "HTTP requests answered", ["service", "method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "kilonova_request_seconds", "From a request's headers to the end of its answer", ["service", "method", "route"],
    buckets=QUICK, registry=REGISTRY,
)  # fmt: skip

OPERATIONS = Counter(
    "kilonova_operations_total", "Operations that came to an end here", ["kind", "outcome"], registry=REGISTRY
)
OPERATION_SECONDS = Histogram(
    "kilonova_operation_seconds", "From an operation's acceptance to its end", ["kind", "outcome"],
    buckets=SLOW, registry=REGISTRY,
)  # fmt: skip
OPERATION_WAIT_SECONDS = Histogram(
    "kilonova_operation_wait_seconds", "From an operation's acceptance until a conductor took it first", ["kind"],
    buckets=SLOW, registry=REGISTRY,
)  # fmt: skip
STEP_SECONDS = Histogram(
    "kilonova_step_seconds", "Steps of operations, done or undone", ["kind", "step", "phase", "outcome"],
    buckets=SLOW, registry=REGISTRY,
)  # fmt: skip
STEP_REPEATS = Counter(
    "kilonova_step_repeats_total",
    "Effects done anew: after a transient failure, or because the world had moved when they were to be committed",
    ["kind", "step", "reason"],
    registry=REGISTRY,
)
FENCED = Counter(
    "kilonova_operations_fenced_total", "Operations let go because somebody else had them, or they were superseded",
    ["kind"], registry=REGISTRY,
)  # fmt: skip
TAKEOVERS = Counter(
    "kilonova_lease_takeovers_total", "Operations taken over after their conductor's lease had run out", ["kind"],
    registry=REGISTRY,
)  # fmt: skip
RUNNING = Gauge("kilonova_operations_running", "Operations in the hands of this process", registry=REGISTRY)
QUEUE_LENGTH = Gauge(
    "kilonova_queue_length", "Operations in the database, by queue (see docs/observability.md)", ["queue"],
    registry=REGISTRY,
)  # fmt: skip
QUEUE_AGE_SECONDS = Gauge(
    "kilonova_queue_age_seconds", "Age of the oldest operation of each queue, 0 without one", ["queue"],
    registry=REGISTRY,
)  # fmt: skip

DECISIONS = Counter("kilonova_scheduler_decisions_total", "Answers of the scheduler", ["outcome"], registry=REGISTRY)
DECISION_SECONDS = Histogram(
    "kilonova_scheduler_decision_seconds", "Computing of a decision, without reading the hosts",
    buckets=TINY, registry=REGISTRY,
)  # fmt: skip
PICTURE_AGE_SECONDS = Gauge(
    "kilonova_scheduler_picture_age_seconds", "Since the picture of the hosts was last brought up to date",
    registry=REGISTRY,
)  # fmt: skip
PICTURE_HOSTS = Gauge("kilonova_scheduler_picture_hosts", "Hosts in the scheduler's picture", registry=REGISTRY)

COMMANDS = Counter(
    "kilonova_agent_commands_total", "Commands that an agent ended", ["verb", "outcome"], registry=REGISTRY
)
COMMAND_SECONDS = Histogram(
    "kilonova_agent_command_seconds", "Commands on the host, from their start", ["verb"],
    buckets=SLOW, registry=REGISTRY,
)  # fmt: skip
COMMANDS_OPEN = Gauge("kilonova_agent_commands_open", "Commands that run or wait for their turn", registry=REGISTRY)

MESSAGES_REFUSED = Counter(
    "kilonova_messages_refused_total", "Messages whose sender may not say such things (host_identity = required)",
    ["message"], registry=REGISTRY,
)  # fmt: skip

LOOP_STALLS = Counter(
    "kilonova_loop_stalls_total",
    "Times the event loop was held up for more than 20 ms; busy: by its own code, waiting: by the disk or the machine",
    ["cause"],
    registry=REGISTRY,
)
LOOP_STALL_SECONDS = Histogram(
    "kilonova_loop_stall_seconds", "How long the event loop was held up, where it was for more than 20 ms",
    buckets=STALLS, registry=REGISTRY,
)  # fmt: skip


_request_children: dict[tuple[str, str, str, int], tuple[Counter, Histogram]] = {}


def request(service: str, method: str, route: str, status: int, seconds: float) -> None:
    """One HTTP request; `route` is a template of a route table."""
    key = (service, method, route, status)
    children = _request_children.get(key)
    if children is None:
        known = method if method in _METHODS else "(other)"
        children = (
            REQUESTS.labels(service, known, route, str(status)),
            REQUEST_SECONDS.labels(service, known, route),
        )
        if known == method:
            _request_children[key] = children
    children[0].inc()
    children[1].observe(seconds)


@cache
def _step(kind: str, step: str, phase: str, outcome: str) -> Callable[[float], None]:
    return STEP_SECONDS.labels(kind, step, phase, outcome).observe


def step(kind: str, name: str, phase: str, outcome: str, seconds: float) -> None:
    """One step done, undone, failed or stuck."""
    _step(kind, name, phase, outcome)(seconds)


def operation(kind: str, outcome: str, seconds: float) -> None:
    """The end of an operation: done, failed or stuck."""
    OPERATIONS.labels(kind, outcome).inc()
    OPERATION_SECONDS.labels(kind, outcome).observe(seconds)


def command(verb: str, outcome: str, seconds: float | None) -> None:
    """The end of a command on a host; `seconds` None for one that was never begun, or stopped."""
    COMMANDS.labels(verb, outcome).inc()
    if seconds is not None:
        COMMAND_SECONDS.labels(verb).observe(seconds)
