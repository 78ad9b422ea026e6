"""What 200 sessions cost one console proxy."""

from __future__ import annotations

import pytest

from bench.consoles import SESSIONS, measure

MIB = 1 << 20


@pytest.mark.timeout(300)
async def test_two_hundred_sessions_in_one_process_take_less_than_a_mebibyte_each() -> None:
    cost = await measure(seconds=2.0)
    assert cost.sessions == SESSIONS == 200
    assert cost.pictures >= 2 * SESSIONS, "each has shown more than its first picture"
    assert cost.idle < MIB / 2
    assert cost.busy < MIB / 2
    assert cost.stalled < MIB
