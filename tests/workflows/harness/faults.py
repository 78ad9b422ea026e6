"""Every fault that a run can meet, as cases: enumerated from the points and messages of an undisturbed run."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy.exc

from kilonova.bus.messages import Heartbeat, Message
from kilonova.compute import states
from kilonova.compute.servers import power, reset
from kilonova.conductor.pace import Pace
from kilonova.db.engine import CommitUnknown
from kilonova.engine.model import Data, Effect, Run, Workflow
from kilonova.errors import HostFailure, Invalid, Transient
from kilonova.workflows import ALL
from kilonova.workflows.env import Env
from tests.workflows.harness.audit import ABSENT, GONE
from tests.workflows.harness.cases import PATIENCE, Case, Harness, kill, trace
from tests.workflows.harness.cloud import Config, FaultCloud
from tests.workflows.harness.director import Action, Point
from tests.workflows.harness.process import Process
from tests.workflows.harness.scenarios import Scenario

BOOTS = ("boot", "boot_with_ports")
PROMISED = ("delete", "soft_delete")
"""Of these the client was told that it is so, whatever the host says."""
BOUND = 330.0
"""Seconds in which a delete reaches 'gone': what a host gets to destroy a guest, and some for everything else."""


def survived(scenario: Scenario, point: Point) -> set[str]:
    """How a run may end after a fault that must not matter: an API's death may also mean that nothing was asked."""
    return {scenario.end} | ({ABSENT if scenario.start is None else scenario.start} if point.role == "api" else set())


# -- kills
def kills(scenario: Scenario, points: Sequence[Point], *, alone: bool = True) -> list[Case]:
    """Without `alone` the killed conductor's operations are free only when their lease has run out."""
    return [
        Case(
            name=f"kill at {point}" + ("" if alone else ", lease runs out"),
            scenario=scenario,
            expected=survived(scenario, point),
            config=lambda: Config(alone=alone),
            plan=lambda cloud, point=point: {point: kill(cloud)},
            must_strike=1,
            effects=point.role != "api",
        )
        for point in points
        if alone or point.role == "conductor"
    ]


async def double_kills(harness: Harness, scenario: Scenario, firsts: Sequence[Point], seconds: int) -> list[Case]:
    """A second kill while the first is being recovered from: `seconds` points of each recovery."""
    chance = random.Random(harness.seed)
    cases = []
    for first in firsts:
        (case,) = kills(scenario, [first])
        outcome = await harness.run(case)
        assert not outcome.problems, str(outcome)
        after = outcome.trace[outcome.trace.index(first) + 1 :] if first in outcome.trace else []
        for second in chance.sample(after, min(seconds, len(after))):
            cases.append(
                Case(
                    name=f"kill at {first}, then at {second}",
                    scenario=scenario,
                    expected=survived(scenario, first) | survived(scenario, second),
                    plan=lambda cloud, first=first, second=second: {first: kill(cloud), second: kill(cloud)},
                    must_strike=2,
                    effects="api" not in (first.role, second.role),
                )
            )
    return cases


# -- pauses
async def thaw_when_done(cloud: FaultCloud) -> None:
    """Let the frozen go on when all is over: late, fenced, and to no effect."""
    async with asyncio.timeout(600):
        while not (any(p.frozen for p in cloud._processes) and await cloud.open_operations() == 0):
            await asyncio.sleep(0.5)
            if not any(p.frozen for p in cloud._processes) and await cloud.open_operations() == 0:
                break
    for process in cloud._processes:
        process.thaw()


async def _freeze(process: Process) -> None:
    process.freeze()


def pauses(scenario: Scenario, points: Sequence[Point]) -> list[Case]:
    """A conductor stalls until another has taken its operation over and ended it. `points` of a run with two."""
    return [
        Case(
            name=f"pause at {point}",
            scenario=scenario,
            expected={scenario.end},
            config=lambda: Config(conductors=2),
            plan=lambda cloud, point=point: {point: _freeze},
            during=thaw_when_done,
            must_strike=1,
        )
        for point in points
        if point.role == "conductor"
    ]


def stalled_agents(scenario: Scenario, points: Sequence[Point]) -> list[Case]:
    """An agent stalls for so long that its host counts as down, and then goes on."""
    expected = {scenario.end, states.ERROR, *({scenario.failed or scenario.start} if scenario.start else ())}
    return [
        Case(
            name=f"agent stalls at {point}",
            scenario=scenario,
            expected={scenario.end} if scenario.kind in (*BOOTS, *PROMISED) else expected - {None},
            plan=lambda cloud, point=point: {point: _freeze},
            during=thaw_when_done,
            must_strike=1,
            effects=False,
            guest_may_differ=True,
        )
        for point in points
        if point.role == "agent"
    ]


# -- messages
@dataclass(frozen=True)
class Nth:
    """The `nth` message of a kind to a kind of address."""

    to: str
    kind: str
    nth: int


TAMPERINGS: dict[str, tuple[float, ...]] = {
    "lost": (),
    "doubled": (0.0, 0.0),
    "late": (20.0,),
    "doubled late": (0.0, 50.0),
}


def _counting(cloud: FaultCloud, decide: Callable[[Nth], tuple[float, ...] | None]) -> None:
    counts: Counter[tuple[str, str]] = Counter()

    def tamper(address: str, message: Message) -> tuple[float, ...]:
        if not cloud.director.recording or isinstance(message, Heartbeat):
            return (0.0,)
        key = (address.split(".")[0], type(message).__name__)
        counts[key] += 1
        delays = decide(Nth(*key, counts[key]))
        if delays is None:
            return (0.0,)
        cloud.director.struck.append(Point("bus", f"{key[1]} to {key[0]}", counts[key]))
        cloud.not_before = max(cloud.not_before, asyncio.get_running_loop().time() + max(delays, default=0.0) + 1.0)
        return delays

    cloud.bus.tamper = tamper


async def messages(harness: Harness, scenario: Scenario) -> list[Nth]:
    found: list[Nth] = []

    def setup(cloud: FaultCloud) -> dict[Point, Action]:
        def note(nth: Nth) -> None:
            found.append(nth)

        _counting(cloud, note)
        return {}

    outcome = await harness.run(Case(name="listening", scenario=scenario, expected={scenario.end}, plan=setup))
    assert not outcome.problems, str(outcome)
    return found


def tampered(scenario: Scenario, found: Sequence[Nth]) -> list[Case]:
    def setup(target: Nth, delays: tuple[float, ...]) -> Callable[[FaultCloud], dict[Point, Action]]:
        def plan(cloud: FaultCloud) -> dict[Point, Action]:
            _counting(cloud, lambda nth: delays if nth == target else None)
            return {}

        return plan

    return [
        Case(
            name=f"{target.kind} to {target.to} ({target.nth}) {how}",
            scenario=scenario,
            expected={scenario.end},
            plan=setup(target, delays),
            must_strike=1,
        )
        for target in found
        for how, delays in TAMPERINGS.items()
    ]


def bad_weather(scenario: Scenario, seed: int, share: float = 0.25) -> Case:
    """Any message may be lost, doubled or late, for ten minutes."""

    def plan(cloud: FaultCloud) -> dict[Point, Action]:
        chance = random.Random(seed)
        end = asyncio.get_running_loop().time() + 600
        ways = list(TAMPERINGS.values())

        def decide(nth: Nth) -> tuple[float, ...] | None:
            if chance.random() > share or asyncio.get_running_loop().time() > end:
                return None
            return chance.choice(ways)

        _counting(cloud, decide)
        return {}

    return Case(
        name=f"bad weather {seed}", scenario=scenario, expected={scenario.end}, plan=plan, guest_may_differ=True
    )


# -- errors
def _error(kind: str) -> Exception:
    match kind:
        case "host":
            return HostFailure("The host failed, as it was told to.")
        case "invalid":
            return Invalid("Nobody could do this, as was said.")
        case "transient":
            return Transient("Not now, as was said.")
        case _:
            return RuntimeError("Something nobody thought of, as was said.")


KINDS = ("host", "invalid", "transient", "unknown", "deadline")
DEADLINE = 60.0


class _Fails:
    """Fails the first `times` times (None: always)."""

    def __init__(self, kind: str, times: int | None) -> None:
        self.kind = kind
        self.times = times
        self.calls = 0

    def end(self) -> None:
        self.times = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.times is not None and self.calls > self.times:
            return
        if self.kind == "deadline":
            await asyncio.sleep(10 * DEADLINE)
        raise _error(self.kind)


def _wrapped(effect: Effect[Env] | None, when: str, fails: _Fails) -> Effect[Env]:
    async def wrapped(run: Run[Env]) -> Data | None:
        if when == "before":
            await fails()
        result = await effect(run) if effect is not None else None
        if when == "after":
            await fails()
        return result

    return wrapped


def changed(kind: str, step: str, **changes: Callable[[Any], Any]) -> Mapping[str, Workflow[Env]]:
    """All workflows, with attributes of one step replaced by what the functions make of them."""
    workflow = ALL[kind]
    steps = [
        dataclasses.replace(s, **{name: make(getattr(s, name)) for name, make in changes.items()})
        if s.name == step
        else s
        for s in workflow.steps
    ]
    return {**ALL, kind: dataclasses.replace(workflow, steps=tuple(steps))}


def _after_failure(scenario: Scenario, step: str, kind: str, times: int | None) -> set[str]:
    """How a scenario ends when this step's effect fails that way."""
    if kind == "transient" and times is not None:
        return {scenario.end}
    if scenario.kind in BOOTS:
        again = step in ("ports", "build") and times == 1 and kind in ("host", "deadline")
        return {states.ACTIVE} if again else {states.ERROR}
    if scenario.kind in PROMISED:
        return {scenario.end}
    if scenario.kind in ("reboot", "rebuild"):
        return {states.ERROR}
    assert scenario.start is not None
    # The guest may have changed, and if so it was noticed.
    return {scenario.failed or scenario.start, scenario.end}


def failing_steps(scenario: Scenario) -> list[Case]:
    """Each step's effect fails in each way, before and after it took place, once and for ever."""
    cases = []
    for step in ALL[scenario.kind].steps:
        for kind in KINDS:
            for when in ("before", "after"):
                for times in (1, None):

                    def config(
                        step: str = step.name, kind: str = kind, when: str = when, times: int | None = times
                    ) -> Config:
                        fails = _Fails(kind, times)
                        return Config(
                            workflows=changed(
                                scenario.kind,
                                step,
                                effect=lambda effect: _wrapped(effect, when, fails),
                                deadline=lambda _: DEADLINE,
                            ),
                            heal=fails.end,
                        )

                    cases.append(
                        Case(
                            name=f"step {step.name} fails {when} its effect: {kind}, {times or 'all'} times",
                            scenario=scenario,
                            expected=_after_failure(scenario, step.name, kind, times),
                            config=config,
                            during=_delete_again if scenario.deletes else _healed if step.name == "port" else None,
                            effects=False,
                            guest_may_differ=True,
                            patience=3 * PATIENCE,
                        )
                    )
    return cases


async def _healed(cloud: FaultCloud) -> None:
    """A port that is gone while nobody could note it down is found to be so once that works again."""
    async with asyncio.timeout(20 * DEADLINE):
        while await cloud.open_operations():
            await asyncio.sleep(0.25)
    cloud.config.heal()


async def _delete_again(cloud: FaultCloud) -> None:
    """A delete that failed by a fault of the service's own leaves a server in ERROR; asked again, it succeeds."""
    async with asyncio.timeout(BOUND + DEADLINE):
        while await cloud.open_operations():
            await asyncio.sleep(0.25)
    cloud.config.heal()
    for server in await cloud.all_servers():
        await cloud.delete(server.uuid)


VERBS = {
    "boot": ("image", "disks", "config_drive", "defined", "running"),
    "boot_with_ports": ("image", "disks", "config_drive", "plugged", "defined", "running"),
    "delete": ("absent", "disks_absent"),
    "reboot": ("rebooted",),
    "stop": ("stopped",),
    "start": ("defined", "running"),
    "soft_delete": ("stopped",),
    "restore": ("defined", "running"),
    "pause": ("paused",),
    "unpause": ("unpaused",),
    "suspend": ("suspended",),
    "resume": ("resumed",),
    "attach_interface": ("attached",),
    "detach_interface": ("detached",),
    "rebuild": ("absent", "disks_absent", "disks", "config_drive", "defined", "running"),
}


def _after_verb(scenario: Scenario, verb: str, when: str, kind: str, times: int | None) -> set[str]:
    if scenario.kind in PROMISED:
        return {scenario.end}
    if kind == "transient" and times is not None:
        return {scenario.end}
    if verb == "running" and scenario.end == states.STOPPED:
        # Nobody starts it.
        return {scenario.end}
    if scenario.kind in BOOTS:
        if (verb, when, kind) == ("image", "after", "transient"):
            # By then the image is there, and is not asked for again.
            return {states.ACTIVE}
        return {states.ACTIVE} if times is not None and kind != "invalid" else {states.ERROR}
    if scenario.kind in ("reboot", "rebuild"):
        return {states.ERROR}
    assert scenario.start is not None
    return {scenario.failed or scenario.start, scenario.end}


HEALED = 150.0
"""Seconds after which a host that always fails is repaired."""


def failing_hosts(scenario: Scenario, *, also: Collection[str] = ()) -> list[Case]:
    """Each verb of the hypervisor fails in each way. `also`: verbs that always fail beside it, until repaired."""
    cases = []
    for verb in VERBS[scenario.kind]:
        for kind in ("host", "invalid", "transient", "unknown"):
            for when in ("before", "after"):
                for times in (1, None):

                    def config(
                        verb: str = verb, kind: str = kind, when: str = when, times: int | None = times
                    ) -> Config:
                        fails = _Fails(kind, times)
                        started: list[float] = []

                        async def hook(host: str, called: str, now: str, uuid: str) -> None:
                            clock = asyncio.get_running_loop().time()
                            if not started:
                                started.append(clock)
                            if clock - started[0] > HEALED:
                                return
                            if (called, now) == (verb, when):
                                await fails()
                            if called in also and now == "before":
                                raise HostFailure(f"'{called}' does not work here.")

                        return Config(
                            verb_hook=hook,
                            pace=Pace(destroy=30.0),
                            workflows=changed(
                                scenario.kind, ALL[scenario.kind].steps[-1].name, deadline=lambda _: DEADLINE
                            ),
                        )

                    cases.append(
                        Case(
                            name=f"host fails {when} '{verb}': {kind}, {times or 'all'} times"
                            + (f", and always at {', '.join(also)}" if also else ""),
                            scenario=scenario,
                            expected=_after_verb(scenario, verb, when, kind, times),
                            config=config,
                            effects=False,
                            guest_may_differ=True,
                        )
                    )
    return cases


def failing_database(scenario: Scenario, points: Sequence[Point]) -> list[Case]:
    """The connection is lost in each transaction: before its end, or so that nobody knows whether it was committed."""

    def raising(error: Callable[[], Exception]) -> Action:
        async def action(process: Process) -> None:
            raise error()

        return action

    def lost() -> Exception:
        return sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("connection lost"))

    cases = []
    for point in points:
        if point.role not in ("conductor", "api") or not point.label.startswith("write "):
            continue
        errors = {"commit unknown": CommitUnknown} | ({"connection lost": lost} if "before" in point.label else {})
        for name, error in errors.items():
            cases.append(
                Case(
                    name=f"{name} at {point}",
                    scenario=scenario,
                    # What a client was not told of is looked up: an unknown commit changes nothing for it.
                    expected={scenario.end} if name == "commit unknown" else survived(scenario, point),
                    plan=lambda cloud, point=point, error=error: {point: raising(error)},
                    must_strike=1,
                    effects=point.role != "api" or name == "commit unknown",
                )
            )
    return cases


# -- twice
def _twice(effect: Effect[Env] | None) -> Effect[Env] | None:
    if effect is None:
        return None
    once = effect

    async def twice(run: Run[Env]) -> Data | None:
        await once(run)
        run.tries += 1
        return await once(run)

    return twice


def doubled_steps(scenario: Scenario) -> list[Case]:
    """Each step's effect happens twice, with and without an undo that does."""
    cases = []
    for step in ALL[scenario.kind].steps:
        cases.append(
            Case(
                name=f"step {step.name} done twice",
                scenario=scenario,
                expected={scenario.end},
                config=lambda step=step: Config(workflows=changed(scenario.kind, step.name, effect=_twice)),
            )
        )
        if step.undo is not None:
            for times in (1, None):

                def config(step: str = step.name, times: int | None = times) -> Config:
                    fails = _Fails("host", times)
                    return Config(
                        workflows=changed(
                            scenario.kind, step, effect=lambda effect: _wrapped(effect, "after", fails), undo=_twice
                        )
                    )

                cases.append(
                    Case(
                        name=f"step {step.name} undone twice, {times or 'all'} failures",
                        scenario=scenario,
                        expected=_after_failure(scenario, step.name, "host", times),
                        config=config,
                        effects=False,
                    )
                )
    return cases


# -- pushing aside
async def until_gone(cloud: FaultCloud) -> None:
    async with asyncio.timeout(BOUND):
        while not all(server.deleted for server in await cloud.all_servers()):
            await asyncio.sleep(0.25)


def _delete_now(cloud: FaultCloud, host_down: bool) -> Action:
    async def action(process: Process) -> None:
        for server in await cloud.all_servers():
            if host_down:
                await cloud.take_down(server.host or "host-1")
            await cloud.delete(server.uuid)

    return action


def deletes(scenario: Scenario, points: Sequence[Point], *, host_down: bool) -> list[Case]:
    """A delete comes in at each point; with `host_down` the server's host goes away with it and comes back later."""

    async def during(cloud: FaultCloud) -> None:
        await until_gone(cloud)
        for name, host in cloud.hosts.items():
            if host.forced_off:
                await cloud.bring_back(name)

    return [
        Case(
            name=f"delete at {point}" + (", host down" if host_down else ""),
            scenario=scenario,
            expected={GONE},
            plan=lambda cloud, point=point: {point: _delete_now(cloud, host_down)},
            during=during,
            must_strike=1,
            effects=False,
        )
        for point in points
        if point.role in ("conductor", "agent", "scheduler")
    ]


def resets(scenario: Scenario, points: Sequence[Point]) -> list[Case]:
    """An administrator frees the slot at each point; then a delete must leave nothing."""

    def action_of(cloud: FaultCloud) -> Action:
        async def action(process: Process) -> None:
            for server in await cloud.all_servers():
                rt, ctx = cloud.runtime(cloud.api), cloud.context(admin=True)
                await reset.reset_state(rt, ctx, server, states.ERROR)
                now = await cloud.server(server.uuid)
                assert now is None or (now.operation_id is None and now.task_state is None), "the slot is still taken"

        return action

    async def during(cloud: FaultCloud) -> None:
        await asyncio.sleep(5)
        for server in await cloud.all_servers():
            if not server.deleted:
                await cloud.delete(server.uuid)
        await until_gone(cloud)

    return [
        Case(
            name=f"reset-state at {point}",
            scenario=scenario,
            expected={GONE},
            plan=lambda cloud, point=point: {point: action_of(cloud)},
            during=during,
            must_strike=1,
            effects=False,
        )
        for point in points
        if point.role in ("conductor", "agent", "scheduler")
    ]


def hard_over_soft(scenario: Scenario, points: Sequence[Point]) -> list[Case]:
    """A hard reboot comes in at each point of a soft one."""

    def action_of(cloud: FaultCloud) -> Action:
        async def action(process: Process) -> None:
            server = (await cloud.all_servers())[0]
            await power.reboot(cloud.runtime(cloud.api), cloud.context(), server, hard=True)

        return action

    return [
        Case(
            name=f"hard reboot at {point}",
            scenario=scenario,
            expected={states.ACTIVE},
            plan=lambda cloud, point=point: {point: action_of(cloud)},
            must_strike=1,
            effects=False,
        )
        for point in points
        if point.role in ("conductor", "agent")
    ]


def sample(cases: Sequence[Case], most: int, seed: int) -> list[Case]:
    """All of them, or as many as fit, chosen by the seed."""
    return list(cases) if len(cases) <= most else random.Random(seed).sample(cases, most)


async def all_cases(
    harness: Harness, scenario: Scenario, *, firsts: int = 1_000, seconds: int = 3
) -> dict[str, list[Case]]:
    """Every fault for a scenario, by class. `seconds`: second kills for each of `firsts` first ones."""
    points = await trace(harness, scenario)
    paired = await trace(harness, scenario, lambda: Config(conductors=2))
    boots = scenario.kind in BOOTS
    return {
        "kill": kills(scenario, points),
        "kill, lease": kills(scenario, points, alone=False),
        "second kill": await double_kills(
            harness, scenario, random.Random(harness.seed).sample(points, min(firsts, len(points))), seconds
        ),
        "pause": pauses(scenario, paired),
        "stalled agent": stalled_agents(scenario, points),
        "message": tampered(scenario, await messages(harness, scenario)),
        "weather": [bad_weather(scenario, harness.seed + n) for n in range(5)],
        "step fails": failing_steps(scenario),
        "host fails": failing_hosts(scenario) + (failing_hosts(scenario, also=("absent",)) if boots else []),
        "database fails": failing_database(scenario, points),
        "twice": doubled_steps(scenario),
        "delete": deletes(scenario, points, host_down=False),
        "delete, host down": deletes(scenario, points, host_down=True),
        "reset-state": resets(scenario, points),
        "hard over soft": hard_over_soft(scenario, points) if scenario.name == "reboot soft" else [],
    }


Made = Callable[[Harness, Scenario], Awaitable[list[Case]]]
