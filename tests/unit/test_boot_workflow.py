from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from kilonova.bus.messages import Answer
from kilonova.conductor.pace import PACE
from kilonova.errors import Transient
from kilonova.workflows.boot import find_hosts


async def test_a_scheduler_that_fails_to_answer_is_asked_again() -> None:
    """Its database may be away: that is no reason to refuse the server."""
    server = SimpleNamespace(vcpus=1, memory_mb=1, disk_gb=1, pinned_availability_zone=None)
    rt = SimpleNamespace(db=AsyncMock(**{"read.return_value": server}), bus=AsyncMock())
    rt.bus.ask.return_value = Answer(error="The receiver failed to handle the question.")
    rt.world = SimpleNamespace()
    run = SimpleNamespace(
        env=SimpleNamespace(rt=rt, pace=PACE),
        data={},
        scratch={},
        tries=0,
        server_uuid="server-1",
        waiting=lambda *_: nullcontext(),
    )
    with pytest.raises(Transient, match="failed to handle"):
        await find_hosts(cast("Any", run))
