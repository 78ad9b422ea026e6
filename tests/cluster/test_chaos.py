"""A short chaos run on its own servers; the long one is `make chaos` (docs/reliability.md)."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.support.chaos.plan import short
from tests.support.chaos.run import chaos, stage
from tests.support.cluster import durable_servers

SEED = int(os.environ.get("KILONOVA_SEED", "1"))


@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_left_over_whatever_breaks() -> None:
    # They are killed here, and others' tests want theirs alive.
    with durable_servers() as (mariadb, broker):
        plan = short(SEED)
        with stage(mariadb, broker, plan) as cluster:
            report = asyncio.run(chaos(cluster, plan))
            print(report)
            assert not report.wrong, str(report)
            assert report.asked["create: 202"] == plan.servers
            assert len(report.injected) >= 5
            assert {"lost", "doubled", "late"} <= report.messages.keys()
