"""One fault, one run, one verdict; and many of them side by side."""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import sqlite3
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kilonova.conductor.nodes import DRIFT
from kilonova.db.engine import Database
from kilonova.db.schema import migrate
from kilonova.workflows import ALL
from tests.workflows.harness import logs
from tests.workflows.harness.audit import audit
from tests.workflows.harness.cloud import Config, FaultCloud, database
from tests.workflows.harness.director import Action, Director, Point
from tests.workflows.harness.process import Process
from tests.workflows.harness.scenarios import Scenario, make_template

T = TypeVar("T")

PATIENCE = 400.0
"""Seconds on the cloud's clock in which it has to come to rest."""

Setup = Callable[[FaultCloud], dict[Point, Action]]
"""Gives the plan of a run, which may need its cloud."""
After = Callable[[FaultCloud], Awaitable[None]]


@dataclass(kw_only=True)
class Case:
    name: str
    scenario: Scenario
    expected: Collection[str]
    config: Callable[[], Config] = Config
    plan: Setup | None = None
    during: After | None = None
    """Awaited once the scenario's verb was asked for."""
    must_strike: int = 0
    """How many of the planned strikes have to happen; fewer is a flaw of the harness, and counted."""
    effects: bool = True
    """The exact number of effects is known."""
    stuck: bool = False
    guest_may_differ: bool = False
    patience: float = PATIENCE


@dataclass
class Outcome:
    case: Case
    problems: list[str]
    trace: list[Point]
    struck: list[Point]
    seconds: float

    def __str__(self) -> str:
        where = f" struck {'; '.join(map(str, self.struck))}" if self.struck else ""
        return f"{self.case.scenario.name}: {self.case.name}{where}\n    " + "\n    ".join(self.problems)


@dataclass
class Report:
    """What a batch came to."""

    seed: int
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def bad(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.problems]

    @property
    def unstruck(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if len(outcome.struck) < outcome.case.must_strike]

    def __str__(self) -> str:
        runs = Counter(outcome.case.scenario.name for outcome in self.outcomes)
        return (
            f"seed {self.seed}: {len(self.outcomes)} runs ({', '.join(f'{n} {name}' for name, n in runs.items())}), "
            f"{sum(len(o.struck) for o in self.outcomes)} strikes, {len(self.unstruck)} missed, "
            f"{len(self.bad)} bad ends"
        )

    def check(self) -> None:
        """Fails with the first bad ends, and when the harness itself missed much of what it was to strike."""
        print(self)
        shown = "\n".join(str(outcome) for outcome in self.bad[:8])
        assert not self.bad, f"{self}\n{shown}"
        assert len(self.unstruck) <= len(self.outcomes) // 10, f"{self}\n" + "\n".join(map(str, self.unstruck[:8]))


async def schema(directory: Path) -> None:
    db = database(directory)
    await migrate(db)
    await db.close()


async def rest(
    cloud: FaultCloud,
    expected: Collection[str],
    *,
    stuck: bool = False,
    guest_may_differ: bool = False,
    patience: float = PATIENCE,
) -> list[str]:
    """Wait until nothing is under way and the audit finds nothing, twice in a row; else what is wrong in the end."""
    clock = asyncio.get_running_loop().time
    until = clock() + patience
    clean = 0
    pause = 0.01
    wrong: list[str] = []
    while True:
        busy = cloud.busy() or await cloud.open_operations() > 0
        wrong = [] if busy else await audit(cloud, expected, stuck=stuck, guest_may_differ=guest_may_differ)
        clean = clean + 1 if not busy and not wrong else 0
        if clean >= 2:
            return []
        if clock() > until:
            return wrong or ["still busy", *await audit(cloud, expected, stuck=stuck)]
        pause = 0.04 if clean else min(pause * 1.3, 1.0)
        await asyncio.sleep(pause)


_tasks: contextvars.ContextVar[set[asyncio.Task[object]] | None] = contextvars.ContextVar("tasks", default=None)


def _keep_tasks(loop: asyncio.AbstractEventLoop, coro: Any, **kw: Any) -> asyncio.Task[Any]:
    """The dead wait for ever; without somebody who holds them they would be collected as garbage, and complain."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kw)
    mine = _tasks.get()
    if mine is not None:
        mine.add(task)
        task.add_done_callback(mine.discard)
    return task


async def contained(work: Coroutine[Any, Any, T]) -> T:
    """Run it as a task, and end all tasks that it has left behind."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(_keep_tasks)
    tasks: set[asyncio.Task[object]] = set()

    async def inside() -> T:
        _tasks.set(tasks)
        return await work

    result = await loop.create_task(inside())
    for _ in range(20):
        left = [task for task in tasks if not task.done()]
        if not left:
            break
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.1)
    return result


class Harness:
    """Templates by starting state, and runs made from them."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.seed = seed
        self._templates: dict[tuple[str | None, bool, bool], Path] = {}
        self._making = asyncio.Lock()
        self._database: Database | None = None

    async def template(self, scenario: Scenario) -> Path:
        key = (scenario.start, scenario.has_ports, scenario.special)
        async with self._making:
            if key not in self._templates:
                path = self.directory / f"template-{scenario.start}-{len(self._templates)}"
                path.mkdir()
                await contained(make_template(path, scenario))
                self._templates[key] = path
            return self._templates[key]

    async def run(self, case: Case) -> Outcome:
        template = await self.template(case.scenario)
        return await contained(self._run(case, template))

    async def _run(self, case: Case, template: Path) -> Outcome:
        started = time.monotonic()
        directory = self.directory / "case"
        shutil.copytree(template, directory)
        # One for all cases, so that statements are compiled once.
        db = self._database = self._database or database(directory)
        director = Director()
        drifts = logs.count(DRIFT)
        cloud = FaultCloud(directory, director, self.seed, case.config(), db)
        try:
            await cloud.start()
            if case.plan is not None:
                director.plan = case.plan(cloud)
            director.begin()
            await case.scenario.act(cloud)
            if case.during is not None:
                await case.during(cloud)
            problems = await rest(
                cloud,
                case.expected,
                stuck=case.stuck,
                guest_may_differ=case.guest_may_differ,
                patience=case.patience,
            )
            if not problems:
                problems = _effects(case, cloud)
            if logs.count(DRIFT) > drifts:
                problems.append(f"{DRIFT}: a host's report put them right")
        except Exception:
            problems = [traceback.format_exc()]
        finally:
            director.recording = False
            await cloud.close()
        shutil.rmtree(directory)
        return Outcome(case, problems, director.trace, director.struck, time.monotonic() - started)

    async def run_all(self, cases: Iterable[Case]) -> Report:
        return Report(self.seed, [await self.run(case) for case in cases])


def _effects(case: Case, cloud: FaultCloud) -> list[str]:
    """Nothing happened twice that must happen once."""
    downloads = cloud.images.downloads
    if downloads > len(cloud.hosts) + cloud.kills:
        return [f"the image was downloaded {downloads} times"]
    if not case.effects:
        return []
    total: Counter[str] = Counter()
    for host in cloud.hosts.values():
        for guest in host.driver._host.guests.values():
            total.update(guest.effects)
    known = case.scenario.effects
    return [] if not total or total == Counter(known) else [f"effects are {dict(total)}, should be {dict(known)}"]


def kill(cloud: FaultCloud) -> Action:
    async def action(process: Process) -> None:
        await cloud.kill(process)

    return action


def freeze(cloud: FaultCloud) -> Action:
    async def action(process: Process) -> None:
        process.freeze()

    return action


async def trace(harness: Harness, scenario: Scenario, config: Callable[[], Config] = Config) -> list[Point]:
    """All points of an undisturbed run: every place where a process could die."""
    outcome = await harness.run(Case(name="undisturbed", scenario=scenario, expected={scenario.end}, config=config))
    assert not outcome.problems, str(outcome)
    return outcome.trace


def kinds_of(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.role in ("conductor", "agent", "api")]


def grep(directory: Path, *needles: str) -> list[str]:
    """Files that hold one of the needles, free pages and logs included."""
    return [
        f"{path.name}: {needle}"
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for needle in needles
        if needle.encode() in path.read_bytes()
    ]


def tables_of(path: Path) -> list[str]:
    with sqlite3.connect(path) as db:
        return [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


STEPS = {kind: [step.name for step in workflow.steps] for kind, workflow in ALL.items()}
