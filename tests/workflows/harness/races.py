"""Two things at once: each case is one race that a guard decides."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

from kilonova.agent.driver import PowerState
from kilonova.bus.messages import Command, Message, PowerReport, ServerQuestion
from kilonova.compute import states
from kilonova.compute.servers import power
from kilonova.conductor.scheduling import Scheduler
from kilonova.errors import Conflict, NotFound, OverQuota
from kilonova.settings import ComputeSettings, QuotaDefaults
from tests.workflows.harness.audit import GONE
from tests.workflows.harness.cases import Case, Harness
from tests.workflows.harness.cloud import GPU_FLAVOR, TOGETHER, Config, FaultCloud
from tests.workflows.harness.director import Action, Point
from tests.workflows.harness.faults import pauses, thaw_when_done, until_gone
from tests.workflows.harness.process import Process
from tests.workflows.harness.scenarios import SCENARIOS, Scenario


async def freeze(process: Process) -> None:
    process.freeze()


async def early_thaws(harness: Harness, scenario: Scenario, points: Sequence[Point], each: int) -> list[Case]:
    """A stalled conductor wakes up while another is in the middle of the operation; `each`: moments per stall."""
    chance = random.Random(harness.seed)

    def thaw_all(cloud: FaultCloud) -> Action:
        async def action(process: Process) -> None:
            for other in cloud._processes:
                other.thaw()
            # The one that was late goes first.
            await asyncio.sleep(0.05)

        return action

    cases = []
    for case, first in zip(pauses(scenario, points), [p for p in points if p.role == "conductor"], strict=True):
        outcome = await harness.run(case)
        assert not outcome.problems, str(outcome)
        after = outcome.trace[outcome.trace.index(first) + 1 :]
        for second in chance.sample(after, min(each, len(after))):
            cases.append(
                Case(
                    name=f"pause at {first}, going on at {second}",
                    scenario=scenario,
                    expected={scenario.end},
                    config=lambda: Config(conductors=2),
                    plan=lambda cloud, first=first, second=second: {first: freeze, second: thaw_all(cloud)},
                    during=thaw_when_done,
                    must_strike=1,
                )
            )
    return cases


def deletes_over_stalled(scenario: Scenario, points: Sequence[Point]) -> list[Case]:
    """A conductor stalls, the server is deleted through another, and then the stalled one goes on."""

    def action_of(cloud: FaultCloud) -> Action:
        async def action(process: Process) -> None:
            process.freeze()
            for server in await cloud.all_servers():
                await cloud.delete(server.uuid)

        return action

    async def during(cloud: FaultCloud) -> None:
        await until_gone(cloud)
        await thaw_when_done(cloud)

    return [
        Case(
            name=f"delete over the one stalled at {point}",
            scenario=scenario,
            expected={GONE},
            config=lambda: Config(conductors=2),
            plan=lambda cloud, point=point: {point: action_of(cloud)},
            during=during,
            must_strike=1,
            effects=False,
        )
        for point in points
        if point.role == "conductor"
    ]


def refusals(scenario: Scenario, points: Sequence[Point]) -> list[Case]:
    """While an operation is under way, a second one is refused and changes nothing."""

    def action_of(cloud: FaultCloud) -> Action:
        async def action(process: Process) -> None:
            server = (await cloud.all_servers())[0]
            if server.operation_id is None:
                return
            for verb in (power.stop, power.start, power.pause):
                try:
                    await verb(cloud.runtime(cloud.api), cloud.context(), server)
                except Conflict:
                    continue
                raise AssertionError("a second operation was accepted")

        return action

    return [
        Case(
            name=f"second operation at {point}",
            scenario=scenario,
            expected={scenario.end},
            plan=lambda cloud, point=point: {point: action_of(cloud)},
            must_strike=1,
        )
        for point in points
        if point.role in ("conductor", "agent")
    ]


def second_scheduler(cloud: FaultCloud) -> dict[Point, Action]:
    """Neither knows what the other has recommended."""
    rt = cloud.runtime(cloud.process("scheduler"))
    cloud.keep(asyncio.ensure_future(Scheduler(rt.db, rt.bus, rt.world, rt.settings).start()))
    return {}


def crowd(servers: int, room: int) -> Case:
    """More servers than two hosts have room for, placed by two schedulers that do not know of each other."""
    settings = ComputeSettings(cpu_allocation_ratio=room / 64, quota=QuotaDefaults(instances=-1, cores=-1, ram=-1))

    async def more(cloud: FaultCloud) -> None:
        await asyncio.gather(*(cloud.create() for _ in range(servers - 1)))
        while await cloud.open_operations():
            await asyncio.sleep(0.5)
        active = [server for server in await cloud.all_servers() if server.vm_state == states.ACTIVE]
        assert len(active) == 2 * room, f"{len(active)} servers on 2 hosts with room for {room} each"

    return Case(
        name=f"{servers} servers for {2 * room} places",
        scenario=SCENARIOS["boot"],
        expected={states.ACTIVE, states.ERROR},
        config=lambda: Config(settings=settings, conductors=2),
        plan=second_scheduler,
        during=more,
        effects=False,
    )


def grouped(group: str, servers: int, placed: int, *, room: int = 64) -> Case:
    """More members at once than the group's policy has places for, placed by two schedulers."""
    settings = ComputeSettings(cpu_allocation_ratio=room / 64, quota=QuotaDefaults(instances=-1, cores=-1, ram=-1))

    async def more(cloud: FaultCloud) -> None:
        await asyncio.gather(*(cloud.create(group=group) for _ in range(servers)))
        while await cloud.open_operations():
            await asyncio.sleep(0.5)
        members = [server for server in await cloud.all_servers() if server.server_group == group]
        active = [server for server in members if server.vm_state == states.ACTIVE]
        others = [s for s in await cloud.all_servers() if s.server_group is None and s.host in {m.host for m in active}]
        most = placed - len(others) if group == TOGETHER else placed
        assert (len(members), len(active)) == (servers, most), f"{len(active)} of {len(members)}, not {most}"

    return Case(
        name=f"{servers} servers for {placed} places in a group",
        scenario=SCENARIOS["boot"],
        expected={states.ACTIVE, states.ERROR},
        config=lambda: Config(settings=settings, conductors=2),
        plan=second_scheduler,
        during=more,
        effects=False,
    )


def rare(servers: int, placed: int) -> Case:
    """More servers at once than there is of a resource of another class."""

    async def more(cloud: FaultCloud) -> None:
        await asyncio.gather(*(cloud.create(flavor=GPU_FLAVOR) for _ in range(servers)))
        while await cloud.open_operations():
            await asyncio.sleep(0.5)
        holders = [server for server in await cloud.all_servers() if server.claim and server.vm_state == states.ACTIVE]
        assert len(holders) == placed, f"{len(holders)} servers hold what there are {placed} of"

    return Case(
        name=f"{servers} servers for {placed} of a rare resource",
        scenario=SCENARIOS["boot"],
        expected={states.ACTIVE, states.ERROR},
        config=lambda: Config(conductors=2),
        plan=second_scheduler,
        during=more,
        effects=False,
    )


def quota(limit: int, asked: int) -> Case:
    """More creates at once than the project's quota allows: exactly as many as it allows are accepted."""

    async def more(cloud: FaultCloud) -> None:
        results = await asyncio.gather(*(cloud.create() for _ in range(asked - 1)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, OverQuota)]
        assert len(refused) == asked - limit, f"{len(refused)} of {asked} were refused at a limit of {limit}"

    return Case(
        name=f"{asked} creates with a quota of {limit}",
        scenario=SCENARIOS["boot"],
        expected={states.ACTIVE},
        config=lambda: Config(settings=ComputeSettings(quota=QuotaDefaults(instances=limit))),
        during=more,
        effects=False,
    )


def late_duplicate() -> Case:
    """The guest powers itself off after its start; the start's command comes a second time, late: nothing happens."""

    def plan(cloud: FaultCloud) -> dict[Point, Action]:
        def tamper(address: str, message: Message) -> tuple[float, ...]:
            if isinstance(message, Command) and message.verb == "start":
                cloud.not_before = asyncio.get_running_loop().time() + 35.0
                return (0.0, 30.0)
            return (0.0,)

        cloud.bus.tamper = tamper
        return {}

    async def powers_off(cloud: FaultCloud) -> None:
        while await cloud.open_operations():
            await asyncio.sleep(0.1)
        server = (await cloud.all_servers())[0]
        assert server.host is not None
        await cloud.hosts[server.host].driver.guest_changes(server.uuid, PowerState.SHUTDOWN)
        await asyncio.sleep(60)

    return Case(
        name="the start's command again, after the guest went off",
        scenario=SCENARIOS["start"],
        expected={states.STOPPED},
        plan=plan,
        during=powers_off,
    )


def late_power_report() -> Case:
    """A power report from before a start is looked into after it: the server stays on."""

    def plan(cloud: FaultCloud) -> dict[Point, Action]:
        def tamper(address: str, message: Message) -> tuple[float, ...]:
            return (5.0,) if isinstance(message, ServerQuestion) else (0.0,)

        async def report(process: Process) -> None:
            server = (await cloud.all_servers())[0]
            assert server.host is not None
            agent = cloud.hosts[server.host].agent
            states_ = {server.uuid: int(PowerState.RUNNING)}
            await cloud.bus.send(
                "conductor", PowerReport(host=server.host, incarnation=agent.incarnation, states=states_)
            )
            # Long enough for the report to be looked at, not for its question to be answered.
            await asyncio.sleep(1.0)

        cloud.bus.tamper = tamper
        return {Point("api", "write submit before", 1): report}

    async def wait(cloud: FaultCloud) -> None:
        await asyncio.sleep(20)

    return Case(
        name="a power report from before the start",
        scenario=SCENARIOS["start"],
        expected={states.ACTIVE},
        plan=plan,
        during=wait,
        must_strike=1,
    )


def late_command() -> Case:
    """A host goes down with a boot's command on its way; it comes after the host is back and its tombstone cleared."""

    def plan(cloud: FaultCloud) -> dict[Point, Action]:
        async def goes_down(process: Process) -> None:
            server = (await cloud.all_servers())[0]
            assert server.host is not None
            late = f"agent.{server.host}"

            def tamper(address: str, message: Message) -> tuple[float, ...]:
                if address == late and isinstance(message, Command) and message.verb == "boot":
                    cloud.not_before = asyncio.get_running_loop().time() + 305.0
                    return (300.0,)
                return (0.0,)

            cloud.bus.tamper = tamper
            await cloud.take_down(server.host)

        return {Point("conductor", "send Command before", 1): goes_down}

    async def comes_back(cloud: FaultCloud) -> None:
        await asyncio.sleep(60)
        for name, host in cloud.hosts.items():
            if host.forced_off:
                await cloud.bring_back(name)
        await asyncio.sleep(260)

    return Case(
        name="a boot's command after its tombstone was cleared",
        scenario=SCENARIOS["boot"],
        expected={states.ACTIVE},
        plan=plan,
        during=comes_back,
        must_strike=1,
    )


VERBS = (power.stop, power.start, power.pause, power.unpause, power.suspend, power.resume)


def storm(seed: int, servers: int = 8, turns: int = 60) -> Case:
    """Clients do what they like to several servers, while processes die and messages go astray."""

    async def blow(cloud: FaultCloud) -> None:
        chance = random.Random(seed)

        def tamper(address: str, message: Message) -> tuple[float, ...]:
            return chance.choice(((), (0.0, 0.0), (8.0,))) if chance.random() < 0.05 else (0.0,)

        cloud.bus.tamper = tamper
        await asyncio.gather(*(cloud.create() for _ in range(servers - 1)))
        for _ in range(turns):
            await asyncio.sleep(chance.expovariate(1.0))
            alive = [server for server in await cloud.all_servers() if not server.deleted]
            living = [p for p in cloud._processes if not p.dead and p.role in ("conductor", "agent", "scheduler")]
            if chance.random() < 0.3:
                await cloud.kill(chance.choice(living))
            elif alive:
                server = chance.choice(alive)
                with contextlib.suppress(Conflict, NotFound):
                    if chance.random() < 0.1:
                        await cloud.delete(server.uuid)
                    elif chance.random() < 0.3:
                        hard = chance.random() < 0.5
                        await power.reboot(cloud.runtime(cloud.api), cloud.context(), server, hard=hard)
                    else:
                        await chance.choice(VERBS)(cloud.runtime(cloud.api), cloud.context(), server)
        cloud.bus.tamper = None
        cloud.not_before = asyncio.get_running_loop().time() + 10.0

    return Case(
        name=f"storm {seed}",
        scenario=SCENARIOS["boot"],
        expected={states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED, GONE},
        config=lambda: Config(conductors=2, hosts=3),
        during=blow,
        effects=False,
    )
