"""How long each part of the guide's run took, and each step: a table at the end of the run."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

_TITLES = {"test_guide": "the chapter", "test_systems": "its systems", "test_use": "the cloud in use"}


class Minutes:
    def __init__(self) -> None:
        self._steps: dict[tuple[str, str], float] = {}
        """Seconds by part and step, in their order."""

    @contextmanager
    def of(self, part: str, step: str) -> Iterator[None]:
        """Counts what runs inside as a step of its own."""
        began = monotonic()
        try:
            yield
        finally:
            self.add(part, step, monotonic() - began)

    def add(self, part: str, step: str, seconds: float) -> None:
        self._steps[part, step] = self._steps.get((part, step), 0.0) + seconds

    def add_test(self, module: str, test: str, seconds: float) -> None:
        self.add(_TITLES.get(module, module), test.removeprefix("test_").replace("_", " "), seconds)

    def table(self) -> list[str]:
        """Lines of a Markdown table, and one that says what all of it took."""
        parts: dict[str, float] = {}
        for (part, _), seconds in self._steps.items():
            parts[part] = parts.get(part, 0.0) + seconds
        lines = ["| part | step | seconds |", "| --- | --- | --- |"]
        for part, whole in parts.items():
            lines += [f"| {part} | {step} | {took:.0f} |" for (of, step), took in self._steps.items() if of == part]
            lines.append(f"| **{part}** | | **{whole:.0f}** |")
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = (children.ru_utime + children.ru_stime) / 60
        return [*lines, "", f"{sum(parts.values()) / 60:.1f} minutes; {used:.1f} minutes of one processor's time"]
