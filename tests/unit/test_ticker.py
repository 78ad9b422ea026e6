"""One timer for what agents do every so often."""

from __future__ import annotations

import asyncio
import gc

import structlog

from kilonova.agent.report import Ticker
from kilonova.world import World


async def test_a_job_that_fails_is_told_and_none_is_left_out_for_it() -> None:
    ticker, done = Ticker(World(1)), asyncio.Event()

    def plain() -> None:
        raise ValueError("plain")

    async def waits() -> None:
        raise ValueError("waits")

    async def last() -> None:
        done.set()

    with structlog.testing.capture_logs() as logged:
        jobs = [ticker.every(60.0, job) for job in (plain, waits, last)]
        await asyncio.wait_for(done.wait(), 60)
    assert [(entry["event"], entry["job"]) for entry in logged] == [
        ("agent.report_failed", "plain"),
        ("agent.report_failed", "waits"),
    ]
    for job in jobs:
        job.stop()


async def test_one_that_is_stopped_before_it_begins_leaves_nothing_unawaited() -> None:
    ticker, told = Ticker(World(1)), []

    async def job() -> None:
        told.append("begun")

    periodic = ticker.every(60.0, job, first=60.0)
    ticker._begin(periodic)
    periodic.stop()
    await asyncio.sleep(0.05)
    gc.collect()
    assert told == []
    assert periodic.task is not None
    assert periodic.task.cancelled()
