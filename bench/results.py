"""All that one run found, and its tables in Markdown."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.compare import Compared
from bench.creates import Burst, OneByOne, Survival
from bench.footprint import Footprint
from bench.networking import ANSWER, Calls
from bench.scheduler import Decision
from bench.statements import BUDGETS, CALLS, Counted

MIB = 1 << 20


@dataclass(kw_only=True)
class Results:
    """`load` is the machine's load average before the run."""

    load: float
    compared: list[Compared] = field(default_factory=list)
    counted: dict[str, Counted] = field(default_factory=dict)
    idle_statements: float = 0.0
    calls: dict[str, Calls] = field(default_factory=dict)
    """Of Networking."""
    empty: list[Burst] = field(default_factory=list)
    full: list[Burst] = field(default_factory=list)
    one_by_one: OneByOne | None = None
    survival: Survival | None = None
    rss_after_lists: int = 0
    footprint: Footprint | None = None
    decisions: list[Decision] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Requests whose route is not there."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _ms(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def requests(results: Results) -> str:
    head = (
        "request", "c1, ms", "floor", "times", "c8, per s", "floor", "times", "CPU, ms", "floor", "times", "bytes",
    )  # fmt: skip
    rows = []
    for one in results.compared:
        median = statistics.median
        cells = [
            one.name,
            _ms(median(one.ours.c1)),
            _ms(median(one.floor.c1)),
            f"{one.c1_ratio:.1f}",
            _rate(median(one.ours.c8)),
            _rate(median(one.floor.c8)),
            f"{one.c8_ratio:.1f}",
        ]
        if one.ours.cpu:
            cells += [_ms(median(one.ours.cpu)), _ms(median(one.floor.cpu)), f"**{one.cpu_ratio:.1f}**"]
        else:
            cells += ["", "", ""]
        rows.append([*cells, f"{one.ours.size:,}"])
    text = _table(head, rows)
    if results.left_out:
        text += "\n\nNot there yet: " + ", ".join(results.left_out) + "."
    return text


def statements(results: Results) -> str:
    rows = [
        (name, str(len(counted.data)), str(BUDGETS[name]), str(counted.transactions))
        for name, counted in results.counted.items()
    ]
    text = _table(("what", "data statements", "budget", "transactions that write (BEGIN, COMMIT)"), rows)
    return f"{text}\n\nWith nothing to do: {results.idle_statements:.1f} statements a second."


def calls(results: Results) -> str:
    rows = [
        (
            name,
            str(found.calls.total()),
            str(CALLS[name]),
            ", ".join(f"{count} {what}" if count > 1 else what for what, count in sorted(found.calls.items())),
            _ms(found.waited),
            _ms(found.seconds - found.waited),
        )
        for name, found in results.calls.items()
    ]
    head = ("what", "calls", "budget", "which", "waiting for Networking, ms", "else, ms")
    return f"{_table(head, rows)}\n\nEach call takes {_ms(ANSWER)} ms here."


def life(results: Results) -> str:
    rows: list[tuple[str, str]] = []
    if results.empty and results.full:
        empty = statistics.median(burst.per_second for burst in results.empty)
        full = statistics.median(burst.per_second for burst in results.full)
        cpu_empty = statistics.median(burst.cpu for burst in results.empty)
        cpu_full = statistics.median(burst.cpu for burst in results.full)
        rows += [
            ("100 creates in a burst until all ACTIVE, empty host, servers per s", _rate(empty)),
            ("the same with 1,000 servers on the host, servers per s", _rate(full)),
            ("CPU of one server to ACTIVE, empty host, ms", _ms(cpu_empty)),
            ("CPU of one server to ACTIVE, 1,000 servers on the host, ms", _ms(cpu_full)),
            ("cost with 1,000 servers : empty (CPU)", f"{cpu_full / cpu_empty:.2f}"),
        ]
    if results.one_by_one is not None:
        one = results.one_by_one
        rows += [
            ("POST /servers -> 202, one by one, ms", _ms(one.accepted)),
            ("create -> ACTIVE, one by one, ms", _ms(one.active)),
            ("DELETE -> gone, one by one, ms", _ms(one.gone)),
        ]
    if results.survival is not None:
        kept = results.survival
        rows.append(
            (
                "kill -9 amid a burst: acknowledged / lost / ACTIVE after the next start",
                f"{kept.acknowledged} / {kept.lost} / {kept.active}",
            )
        )
    return _table(("what", "measured"), rows)


def footprint(results: Results) -> str:
    rows: list[tuple[str, str]] = []
    if results.footprint is not None:
        found = results.footprint
        rows += [
            ("own roles started on an empty database, s", f"{found.first_start:.2f}"),
            ("own roles started on an existing database, s", f"{found.start:.2f}"),
            ("CPU of that start, s", f"{found.start_cpu:.2f}"),
            ("memory of all roles in one process, idle (RSS), MiB", f"{found.idle / MIB:.0f}"),
        ]
    if results.rss_after_lists:
        rows.append(
            (
                "the same after 1,100 creates and lists of 1,000 servers (RSS), MiB",
                f"{results.rss_after_lists / MIB:.0f}",
            )
        )
    return _table(("what", "measured"), rows)


def decisions(results: Results) -> str:
    rows = [(f"{one.hosts:,}", one.what, f"{one.cpu * 1e6:,.0f}") for one in results.decisions]
    lines = ["| hosts | decision | CPU, µs |", "| ---: | --- | ---: |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def tables(results: Results) -> str:
    """Everything, as it stands in docs/performance.md."""
    now = dt.datetime.now(dt.UTC)
    return "\n\n".join(
        (
            f"Measured on {now:%Y-%m-%d}, {os.cpu_count()} CPUs, CPython {platform.python_version()};"
            f" the machine's load average before the run was {results.load:.1f}.",
            "### Requests beside the floor",
            requests(results),
            "### Statements",
            statements(results),
            "### Networking's calls",
            calls(results),
            "### Servers on the simulated hypervisor",
            life(results),
            "### One decision of the scheduler",
            decisions(results),
            "### Start and memory",
            footprint(results),
        )
    )
