"""How long and how hard a chaos run is, and what it has to tell."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how hard. Durations in seconds."""

    seed: int
    servers: int
    seconds: float
    hosts: int
    lease: int
    down: int
    """`service_down_time`"""
    broker_away: float
    """Across machines the database too."""
    host_away: float
    quiescence: float
    """The bound: at rest so long after the last fault."""
    period: float
    """Between two faults, on average."""
    vcpus: int | None = None
    """Of each host: at the end all of them are filled. None: any number, and they are not."""

    @property
    def machines(self) -> bool:
        """Whether it runs across machines (`tests.support.machines`)."""
        return self.vcpus is not None


def short(seed: int) -> Plan:
    return Plan(
        seed=seed, servers=60, seconds=40, hosts=5, lease=5, down=10, broker_away=6, host_away=14, quiescence=240,
        period=5,
    )  # fmt: skip


def middle(seed: int, servers: int, minutes: float) -> Plan:
    """Time-outs between those of the two."""
    return Plan(
        seed=seed, servers=servers, seconds=60 * minutes, hosts=20, lease=10, down=20, broker_away=20, host_away=40,
        quiescence=300, period=8,
    )  # fmt: skip


def across(plan: Plan) -> Plan:
    """The same across machines, where a process has hosts for a third of all servers twice over."""
    return replace(plan, vcpus=-(-2 * plan.servers // (3 * plan.hosts)))


def full(seed: int, servers: int = 1000, minutes: float = 6) -> Plan:
    return Plan(
        seed=seed, servers=servers, seconds=60 * minutes, hosts=50, lease=30, down=60, broker_away=60, host_away=120,
        quiescence=600, period=12,
    )  # fmt: skip


@dataclass(kw_only=True)
class Report:
    plan: Plan
    injected: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    """What clients were told, by request and status."""
    ended: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ports: int = 0
    """Of the servers there are."""
    struck: set[str] = field(default_factory=set)
    """Compute processes that were killed or partitioned: their hosts may have been silent for too long."""
    rest: float = 0.0
    """Seconds from the last fault until the audit found nothing."""
    filled: str = ""
    """What more demand than capacity came to at the end."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        where = " across machines" if self.plan.machines else ""
        lines = [
            f"seed {self.plan.seed}{where}: {self.plan.servers} servers, {self.plan.seconds:.0f} s of faults",
            f"injected: {_counts(self.injected)}",
            f"messages: {_counts(self.messages)}",
            f"clients were told: {_counts(self.asked)}",
            f"servers ended: {_counts(self.ended)}, with {self.ports} ports",
            f"reasons of ERROR: {_counts(self.faults) or 'none'}",
            f"at rest after {self.rest:.0f} s (bound {self.plan.quiescence:.0f} s)",
            *([f"then filled: {self.filled}"] if self.filled else []),
            f"audit: {'nothing wrong' if not self.wrong else f'{len(self.wrong)} wrong'}",
        ]
        return "\n".join([*lines, *(f"  {each}" for each in self.wrong[:40])])


SILENT = re.compile(r"Host '(\w+)-\d+' does not answer\.")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
