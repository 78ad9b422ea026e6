"""Whether a process can do its work: what `/healthcheck` at the metrics' port says of each role."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Check = Callable[[], Awaitable[bool]]
"""Whether something that a role stands on is there. What it raises counts as no."""

STARTING, STOPPING = "STARTING", "STOPPING"
PATIENCE = 3.0
"""Seconds for each check."""


class Health:
    """`waived`: names of checks without which this role does its work all the same."""

    def __init__(self, *, waived: frozenset[str] = frozenset()) -> None:
        self._waived = waived
        self._checks: dict[str, Check] = {}
        self.phase: str | None = STARTING
        """Why nothing is done at all, None while the role serves."""

    def add(self, name: str, check: Check) -> None:
        if name not in self._waived:
            self._checks[name] = check

    async def missing(self) -> list[str]:
        """What keeps the role from its work: names of checks, or the phase. Empty: nothing does."""
        if self.phase is not None:
            return [self.phase]
        found = await asyncio.gather(*(_passes(check) for check in self._checks.values()))
        return [name for name, there in zip(self._checks, found, strict=True) if not there]


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            return await check()
    except Exception:
        return False
