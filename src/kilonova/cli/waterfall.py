"""An operation as bars on one line of time: its steps, what they waited for, and the gaps between them. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from kilonova.db.trace import TracedOperation, TracedStep
from kilonova.workflows import ALL

SHORT = 0.005
"""Seconds from which on a gap is worth a line."""

_WAITS = {"turn": "turn of", "host": "host:", "networking": "Networking:"}


@dataclass(frozen=True, slots=True)
class Bar:
    """`spans`: (from, seconds) in seconds from the operation's acceptance. `depth` 1: within the step above."""

    label: str
    kind: str
    """step, undo, failed, gap, or what a step waited for."""
    spans: tuple[tuple[float, float], ...]
    host: str = ""
    note: str = ""
    depth: int = 0

    @property
    def began(self) -> float:
        return self.spans[0][0]

    @property
    def seconds(self) -> float:
        """In all its spans together."""
        return sum(seconds for _, seconds in self.spans)


def bars(operation: TracedOperation, before: Sequence[TracedOperation], now: dt.datetime) -> list[Bar]:
    """`before`: earlier operations of the server, which this one may have had to wait for. `now`: UTC."""
    zero = operation.created_at
    found: list[Bar] = []
    since, epoch = zero, 0
    for step in operation.steps:
        found += _gap(operation, before, since, step.started_at, epoch, step.epoch)
        found.append(_step(step, zero))
        found += _waits(step, (step.started_at - zero).total_seconds())
        since, epoch = step.finished_at, step.epoch
    if operation.finished_at is None:
        found += _under_way(operation, before, since, epoch, now)
    return found


def total(operation: TracedOperation, now: dt.datetime) -> float:
    """Seconds from its acceptance to its end, or until now."""
    ends = [operation.finished_at or now, *(step.finished_at for step in operation.steps)]
    return max((max(ends) - operation.created_at).total_seconds(), 0.0)


def tries(step: TracedStep) -> int:
    """How often the step's effect was tried."""
    return 1 + sum(what == "retry" for what, _, _, _ in step.waits)


def _step(step: TracedStep, zero: dt.datetime) -> Bar:
    undo = step.phase == "undo"
    notes = []
    if step.attempt:
        notes.append(f"attempt {step.attempt + 1}")
    if tries(step) > 1:
        notes.append(f"{tries(step)} tries")
    if step.error:
        notes.append(step.error)
    return Bar(
        label=f"undo {step.name}" if undo else step.name,
        kind="failed" if step.error else "undo" if undo else "step",
        spans=(_span(zero, step.started_at, step.finished_at),),
        host=step.host or "",
        note="; ".join(notes),
    )


def _waits(step: TracedStep, offset: float) -> list[Bar]:
    """One bar for each thing that was waited for, however often."""
    grouped: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for what, details, began, seconds in step.waits:
        grouped.setdefault((what, details), []).append((offset + began, seconds))
    return [_wait(what, details, tuple(spans)) for (what, details), spans in grouped.items()]


def _wait(what: str, details: str, spans: tuple[tuple[float, float], ...]) -> Bar:
    host = note = ""
    if what in ("turn", "host"):
        verb, _, host = details.partition(" on ")
        label = f"{_WAITS[what]} {verb}"
    elif what == "retry":
        label, note = "pause before another try", details
    else:
        label = f"{_WAITS[what]} {details}" if what in _WAITS else what
    if len(spans) > 1:
        label += f", {len(spans)} times"
    return Bar(label, what, spans, host=host, note=note, depth=1)


def _gap(
    operation: TracedOperation,
    before: Sequence[TracedOperation],
    since: dt.datetime,
    until: dt.datetime,
    epoch: int,
    next_epoch: int,
) -> list[Bar]:
    """Between two steps nobody works: why not?"""
    zero = operation.created_at
    if since == zero and not epoch:
        return _first_gap(operation, before, until)
    if (until - since).total_seconds() < SHORT:
        return []
    spans = (_span(zero, since, until),)
    if next_epoch > epoch:
        note = "the conductor before died, stood still or stopped; what it had begun was done anew"
        return [Bar("until another conductor took it", "gap", spans, note=note)]
    return [Bar("between steps", "gap", spans)]


def _first_gap(operation: TracedOperation, before: Sequence[TracedOperation], until: dt.datetime) -> list[Bar]:
    zero = operation.created_at
    found, since = [], zero
    for other in before:
        # One without an end yet, or which ended only after this was accepted, had the server's slot.
        end = min(other.finished_at or until, until)
        if other.created_at <= zero and end > since and other.finished_at != other.created_at:
            note = f"{other.kind}, {other.request_id}"
            if (end - since).total_seconds() >= SHORT:
                found.append(Bar("its turn, behind another operation", "gap", (_span(zero, since, end),), note=note))
            since = end
    if (until - since).total_seconds() >= SHORT:
        found.append(Bar("until a conductor took it", "gap", (_span(zero, since, until),)))
    return found


def _under_way(
    operation: TracedOperation, before: Sequence[TracedOperation], since: dt.datetime, epoch: int, now: dt.datetime
) -> list[Bar]:
    zero = operation.created_at
    span = (_span(zero, since, max(now, since)),)
    if operation.state == "queued":
        return _first_gap(operation, before, now)
    if operation.state == "ready":
        return [Bar("waits for a conductor", "gap", span)]
    if operation.lease_until < now.replace(tzinfo=dt.UTC).timestamp():
        return [Bar("lost", "gap", span, note="its conductor renews its lease no more, and no other has taken it")]
    workflow = ALL.get(operation.kind)
    known = workflow is not None and operation.step < len(workflow.steps)
    name = workflow.steps[operation.step].name if workflow is not None and known else f"step {operation.step}"
    progress = operation.progress or {}
    note = f"under way: {progress['stage']}, {progress['percent']} %" if progress else "under way"
    undo = operation.phase == "undo"
    return [Bar(f"undo {name}" if undo else name, "undo" if undo else "step", span, note=note)]


def _span(zero: dt.datetime, since: dt.datetime, until: dt.datetime) -> tuple[float, float]:
    return (since - zero).total_seconds(), max((until - since).total_seconds(), 0.0)


def drawn(bar: Bar, whole: float, width: int) -> str:
    """The bar on a line of `width` characters that stands for `whole` seconds; every span leaves a mark."""
    line = [" "] * width
    scale = width / whole if whole > 0 else 0.0
    for began, seconds in bar.spans:
        first = min(int(began * scale), width - 1)
        end = max(first + 1, min(round((began + seconds) * scale), width))
        line[first:end] = "█" * (end - first)
    return "".join(line)
