"""Hints: what a request says to whoever would find out by himself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kilonova.bus import hints
from kilonova.bus.messages import Wake
from kilonova.errors import Transient


class Mute:
    """A bus whose broker never confirms, or says that it does not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.sent: list[Any] = []

    async def send(self, address: str, message: object) -> None:
        self.sent.append((address, message))
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [None, Transient("The message broker cannot be reached.")])
async def test_a_hint_that_nobody_takes_ends_and_is_no_error(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "PATIENCE", 0.05)
    bus = Mute(error)
    await hints.hint(bus, "conductor", Wake(operation_id=1))  # type: ignore[arg-type]
    assert bus.sent == [("conductor", Wake(operation_id=1))]


async def test_whoever_goes_away_meanwhile_is_not_held() -> None:
    task = asyncio.create_task(hints.hint(Mute(), "conductor", Wake(operation_id=1)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
