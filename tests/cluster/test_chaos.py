"""A short chaos run on its own servers; the long one is `make chaos` (docs/reliability.md)."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.chaos.plan import short
from tests.support.chaos.run import chaos, stage
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker

SEED = int(os.environ.get("KILONOVA_SEED", "1"))


@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_left_over_whatever_breaks() -> None:
    # They are killed here, and others' tests want theirs alive.
    directories = [Path(tempfile.mkdtemp(prefix="kn-chaos-")) for _ in range(2)]
    mariadb, broker = MariaDB(directories[0], fsync=True), Broker(directories[1])
    try:
        mariadb.install()
        mariadb.start()
        mariadb.grant()
        broker.start()
        plan = short(SEED)
        with stage(mariadb, broker, plan) as cluster:
            report = asyncio.run(chaos(cluster, plan))
            print(report)
            assert not report.wrong, str(report)
            assert report.asked["create: 202"] == plan.servers
            assert len(report.injected) >= 5
            assert {"lost", "doubled", "late"} <= report.messages.keys()
    finally:
        mariadb.close()
        broker.close()
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
