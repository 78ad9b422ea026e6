"""One seed, one run, one verdict."""

from __future__ import annotations

import asyncio
import gc
import random
import traceback
from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa

from kilonova.db.tables import instance_types
from tests.simulation import invariants
from tests.simulation.cloud import Cloud, Plan
from tests.simulation.database import Store
from tests.simulation.loop import Loop, Stuck
from tests.simulation.parts import JournalFile
from tests.simulation.story import Story
from tests.simulation.weather import Trace, Weather

PATIENCE = 1500.0
"""Seconds of the simulated clock in which the cloud has to come to rest after the last fault."""


@dataclass
class Outcome:
    seed: int
    problems: list[str]
    digest: str
    """The same for every run of this seed on this code."""
    simulated: float
    """Seconds."""
    turns: int
    commits: int
    requests: int
    faults: Counter[str]
    lines: list[str] = field(default_factory=list)


class Simulator:
    """Runs one seed after another, on one database."""

    def __init__(self) -> None:
        self._store = Store()
        self._journal = JournalFile()
        self._runs = 0
        for name, vcpus, specs in (
            ("1", 1, {}),
            ("2", 2, {}),
            ("gold", 1, {"resources:CUSTOM_GOLD": "1"}),
            ("own", 1, {"hw:cpu_policy": "dedicated"}),
        ):
            statement = sa.insert(instance_types).values(
                flavorid=name, name=f"m{name}", vcpus=vcpus, memory_mb=512 * vcpus, root_gb=vcpus,
                extra_specs=specs, created_at=sa.func.datetime("2030-01-01"),
            )  # fmt: skip
            self._store.connection._general.execute(statement)
        # Collected between runs: what a run leaves behind is all garbage at once.
        gc.collect()
        gc.freeze()
        gc.disable()

    def run(self, seed: int, *, lines: list[str] | None = None) -> Outcome:
        """`lines`: to put the trace in."""
        store, journal = self._store, self._journal
        loop = Loop(random.Random(seed))
        trace = Trace(loop, lines)
        weather = Weather(seed, loop, trace)
        cloud = Cloud(loop, weather, trace, store, journal, Plan.of(weather.chance))
        story = Story(cloud, weather.chance)
        store.clock = lambda: 1_893_456_000.0 + loop.now
        store.begin_run()
        store.check = invariants.Commits(cloud).check
        journal.clear()
        problems: list[str] = []

        async def main() -> None:
            problems.extend(await _live(cloud, story))
            trace.say("world", "ends")
            if lines is not None and problems:
                lines.extend(invariants.describe(cloud))

        try:
            loop.run(main())
        except (Stuck, invariants.Broken) as error:
            problems.append(str(error))
            if lines is not None:
                lines.extend(invariants.describe(cloud))
        except Exception:
            problems.append(traceback.format_exc())
        finally:
            commits = store.commits
            store.end_run()
            self._runs += 1
            if self._runs % 16 == 0:
                gc.collect()
        return Outcome(
            seed=seed, problems=problems, digest=trace.digest(), simulated=loop.now, turns=loop.steps, commits=commits,
            requests=story.requests, faults=trace.counts, lines=lines or [],
        )  # fmt: skip


async def _live(cloud: Cloud, story: Story) -> list[str]:
    await cloud.start()
    cloud.weather.next_strike()
    await story.tell()
    cloud.calm()
    return await _rest(cloud, story)


async def _rest(cloud: Cloud, story: Story) -> list[str]:
    """Wait until nothing is under way at two looks and nothing is wrong; else what is wrong in the end."""
    raw = cloud.store.raw
    look = (
        "SELECT kind, id, state FROM instance_actions WHERE state IN ('queued', 'ready', 'running')"
        " UNION ALL SELECT 'tombstone', host, server_uuid FROM tombstones"
    )
    until = cloud.loop.now + PATIENCE
    quiet = 0
    pause = 0.2
    while True:
        busy = cloud.busy() + raw.execute(look).fetchall()
        quiet = 0 if busy else quiet + 1
        wrong = await invariants.at_rest(cloud, story.known) if quiet > 1 else []
        if quiet > 1 and not wrong:
            return []
        if cloud.loop.now > until:
            return wrong or [f"still busy: {busy}", *await invariants.at_rest(cloud, story.known)]
        pause = 2.0 if quiet == 1 else min(pause * 1.4, 20.0)
        await asyncio.sleep(pause)
