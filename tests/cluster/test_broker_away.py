"""A broker that is away for minutes: the API goes on accepting, and all that was accepted is done once it is back."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import short
from tests.support.chaos.run import chaos, options
from tests.support.cluster import durable_servers, make_cluster

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("BROKER_NODES"), reason="of `make cluster`: minutes without a broker"),
]

MINUTES = 2
PLAN = replace(short(1), servers=60, seconds=60 * MINUTES, broker_away=60 * MINUTES)
COUNTS = {"api": 2, "conductor": 2, "scheduler": 2, "compute": 2}


class Away(Faults):
    async def run(self) -> None:
        await asyncio.sleep(self.plan.period)
        self.report.injected["broker away"] += 1
        await asyncio.to_thread(self.cluster.broker.kill)
        await asyncio.sleep(self.plan.broker_away)
        await asyncio.to_thread(self.cluster.broker.start)


def test_nothing_is_refused_or_lost_while_the_broker_is_away_for_minutes() -> None:
    """Of creates and deletes; a server that is still being built takes no other action meanwhile (409)."""
    with (
        durable_servers() as (mariadb, broker),
        make_cluster(mariadb, broker, counts=COUNTS, hosts=PLAN.hosts, options=options(PLAN)) as cluster,
    ):
        report = asyncio.run(chaos(cluster, PLAN, Away))
    print(report)
    assert not report.wrong, str(report)
    assert report.injected == {"broker away": 1}
    told = {what for what in report.asked if what.startswith(("create", "delete"))}
    assert told == {"create: 202", "delete: 204"}, str(report)
    assert report.asked["create: 202"] == PLAN.servers
    assert not report.faults, str(report)
