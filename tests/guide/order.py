"""The steps build on each other, in the order of the files: one whose predecessors did not pass is not taken."""

from __future__ import annotations

import re
from pathlib import Path

from tests.guide.marks import WHOLE

FILES = ("test_guide.py", "test_systems.py", "test_use.py") if WHOLE else ("test_guide.py", "test_systems.py")
_STEP = re.compile(r"^(@whole\n)?def (test_\w+)", flags=re.MULTILINE)


class Order:
    def __init__(self) -> None:
        here = Path(__file__).parent
        self._steps = [
            (file, step)
            for file in FILES
            for of_whole, step in _STEP.findall((here / file).read_text())
            if WHOLE or not of_whole
        ]
        self._passed: dict[tuple[str, str], bool] = {}
        """A step of several tests: whether all of them did so far."""

    def happened(self, file: str, step: str, *, passed: bool) -> None:
        self._passed[file, step] = self._passed.get((file, step), True) and passed

    def missing(self, file: str, step: str) -> str | None:
        """The first step before this one that did not happen, or failed."""
        for earlier in self._steps:
            if earlier == (file, step):
                return None
            if not self._passed.get(earlier):
                return earlier[1]
        return None
