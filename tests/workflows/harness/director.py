"""Counts the points that processes pass, and strikes where a case says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.workflows.harness.process import Process

Action = Callable[[Process], Awaitable[None]]


@dataclass(frozen=True, order=True)
class Point:
    """The `nth` time (from 1) that any process of a role gets to a place."""

    role: str
    label: str
    nth: int

    def __str__(self) -> str:
        return f"{self.role}: {self.label} ({self.nth})"


@dataclass
class Director:
    plan: dict[Point, Action] = field(default_factory=dict)
    trace: list[Point] = field(default_factory=list)
    struck: list[Point] = field(default_factory=list)
    recording: bool = False
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def begin(self) -> None:
        """From now on points count: what is under test starts here."""
        self.recording = True

    async def at(self, process: Process, label: str) -> None:
        if not self.recording:
            return
        role = process.role
        self._counts[role, label] += 1
        point = Point(role, label, self._counts[role, label])
        self.trace.append(point)
        action = self.plan.get(point)
        if action is not None:
            self.struck.append(point)
            await action(process)
