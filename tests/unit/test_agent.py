from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from kilonova.agent.commands import (
    BootArgs,
    DestroyArgs,
    RebootArgs,
    RebuildArgs,
    ServerArgs,
    StartArgs,
    StopArgs,
)
from kilonova.agent.driver import PowerState, Secrets
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import (
    Heartbeat,
    HostReport,
    Message,
    PowerReport,
    ProgressReport,
    ReportWanted,
    Result,
    ServerQuestion,
)
from kilonova.nic import Nic
from tests.support.agents import SERVER, Bench, Gate, make_bench, make_command, make_spec

BOOT = make_command()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path) as bench:
        yield bench


async def test_boot_builds_a_running_guest_and_tells_what_was_chosen(bench: Bench) -> None:
    await bench.agent()
    await bench.send(BOOT)
    result = await bench.heard.result(BOOT.key)
    assert result.error is None
    assert result.data == {"power_state": 1, "machine_type": "sim-1.0", "cpu_model": "sim-cpu"}
    assert await bench.driver.power_state(SERVER) is PowerState.RUNNING


async def test_a_repeated_command_gets_the_stored_result_and_does_nothing(bench: Bench) -> None:
    await bench.agent()
    await bench.send(BOOT)
    first = await bench.heard.result(BOOT.key)
    done = bench.driver.effects(SERVER)
    await bench.send(BOOT)
    assert await bench.heard.result(BOOT.key, 2) == first
    assert bench.driver.effects(SERVER) == done


async def test_a_command_doubled_on_the_way_is_done_once(tmp_path: Path) -> None:
    def double(address: str, message: Message) -> Sequence[float]:
        return (0.0, 0.0, 0.05)

    async with make_bench(tmp_path, bus=MemoryBus(tamper=double)) as bench:
        await bench.agent()
        await bench.send(BOOT)
        await bench.heard.result(BOOT.key, 3)
        assert bench.driver.effects(SERVER) == {"disks": 1, "defined": 1, "running": 1}


async def test_a_second_asker_gets_the_result_of_what_runs(tmp_path: Path) -> None:
    gate = Gate("running")
    heard_by_b: list[Message] = []

    async def b(message: Message) -> None:
        heard_by_b.append(message)

    async with make_bench(tmp_path, script=gate) as bench:
        await bench.bus.listen("conductor.c", b)
        await bench.agent()
        await bench.send(BOOT)
        await gate.reached.wait()
        await bench.send(msgspec.structs.replace(BOOT, reply_to="conductor.c"))
        async with asyncio.timeout(10):
            while not heard_by_b:
                await asyncio.sleep(0.01)
        assert isinstance(heard_by_b[0], ProgressReport)
        gate.open.set()
        async with asyncio.timeout(10):
            while not isinstance(heard_by_b[-1], Result):
                await asyncio.sleep(0.01)
        assert bench.heard.results(BOOT.key) == []


async def test_progress_is_told_for_what_takes_long(tmp_path: Path) -> None:
    gate = Gate("disks")
    async with make_bench(tmp_path, script=gate) as bench:
        await bench.agent()
        await bench.send(BOOT)
        await bench.heard.until(lambda: bench.heard.of(ProgressReport))
        assert bench.heard.of(ProgressReport)[0].stage == "disks"
        gate.open.set()
        await bench.heard.result(BOOT.key)


async def test_commands_of_one_server_run_one_after_the_other(tmp_path: Path) -> None:
    gate = Gate("disks")
    async with make_bench(tmp_path, script=gate) as bench:
        await bench.agent()
        await bench.send(BOOT)
        await gate.reached.wait()
        pause = make_command("1/pause/do/0.0", "pause", ServerArgs(uuid=SERVER))
        other = make_command("2/build/do/0.0", uuid="other-server")
        await bench.send(pause)
        await bench.send(other)
        gate.open.set()
        assert (await bench.heard.result(pause.key)).data == {"power_state": 3}
        await bench.heard.result(other.key)
        order = [result.key for result in bench.heard.of(Result)]
        assert order.index(BOOT.key) < order.index(pause.key)


@pytest.mark.parametrize("newer", ["1/build/undo/0.0", "2/destroy/do/0.0"])
@pytest.mark.parametrize("stage", ["image", "disks", "defined", "running"])
async def test_newer_work_stops_what_runs_and_leaves_nothing(tmp_path: Path, newer: str, stage: str) -> None:
    gate = Gate(stage)
    async with make_bench(tmp_path, script=gate) as bench:
        await bench.agent()
        await bench.send(BOOT)
        await gate.reached.wait()
        destroy = make_command(newer, "destroy", DestroyArgs(uuid=SERVER))
        await bench.send(destroy)
        assert (await bench.heard.result(destroy.key)).error is None
        assert (await bench.heard.result(BOOT.key)).error_kind == "superseded"
        assert bench.driver.left() == []
        await bench.send(BOOT)
        assert (await bench.heard.result(BOOT.key, 2)).error_kind == "superseded"
        assert bench.driver.left() == []


async def test_newer_work_waits_for_all_that_it_stops(tmp_path: Path) -> None:
    gate = Gate("disks")
    async with make_bench(tmp_path, script=gate) as bench:
        await bench.agent()
        stop = make_command("2/stop/do/0.0", "stop", StopArgs(uuid=SERVER))
        destroy = make_command("3/destroy/do/0.0", "destroy", DestroyArgs(uuid=SERVER))
        for command in (BOOT, stop, destroy):
            await bench.send(command)
        assert (await bench.heard.result(destroy.key)).error is None
        assert (await bench.heard.result(stop.key)).error_kind == "superseded"
        assert (await bench.heard.result(BOOT.key)).error_kind == "superseded"
        assert bench.driver.left() == []


async def test_a_command_that_arrives_after_its_undo_is_refused(bench: Bench) -> None:
    await bench.agent()
    undo = make_command("1/build/undo/0.0", "destroy", DestroyArgs(uuid=SERVER))
    await bench.send(undo)
    assert (await bench.heard.result(undo.key)).error is None
    await bench.send(BOOT)
    assert (await bench.heard.result(BOOT.key)).error_kind == "superseded"
    assert bench.driver.left() == []


@pytest.mark.parametrize(("kind", "told"), [("host", "host"), ("invalid", "invalid"), ("transient", "transient")])
async def test_a_drivers_error_is_told_with_its_kind(bench: Bench, kind: str, told: str) -> None:
    await bench.agent()
    spec = make_spec(metadata={"sim:fail_at": f"running:1:{kind}"})
    await bench.send(make_command(args=BootArgs(spec=spec)))
    result = await bench.heard.result(BOOT.key)
    assert result.error_kind == told
    assert result.error == "Simulated failure before 'running' (call 1)."
    await bench.send(make_command("1/build/do/0.1", args=BootArgs(spec=spec)))
    assert (await bench.heard.result("1/build/do/0.1")).error is None


async def test_an_unforeseen_error_says_nothing_of_the_inside_but_in_its_details(bench: Bench) -> None:
    await bench.agent()
    await bench.send(make_command(args=BootArgs(spec=make_spec(metadata={"sim:fail_at": "running::crash"}))))
    result = await bench.heard.result(BOOT.key)
    assert result.error_kind == "unknown"
    assert "RuntimeError" not in (result.error or "")
    assert "RuntimeError" in (result.details or "")


async def test_unknown_verbs_and_wrong_arguments_are_invalid(bench: Bench) -> None:
    await bench.agent()
    await bench.send(make_command("1/x/do/0.0", "teleport", ServerArgs(uuid=SERVER)))
    await bench.send(make_command("1/y/do/0.0", "boot", ServerArgs(uuid=SERVER)))
    for key in ("1/x/do/0.0", "1/y/do/0.0"):
        assert (await bench.heard.result(key)).error_kind == "invalid"


async def test_a_killed_agent_finishes_its_command_when_it_is_back(tmp_path: Path) -> None:
    gate = Gate("running")
    async with make_bench(tmp_path, script=gate) as bench:
        agent = await bench.agent(drain_timeout=0.0)
        await bench.send(BOOT)
        await gate.reached.wait()
        await bench.stop(agent)
        assert bench.heard.results(BOOT.key) == []
        assert bench.driver.effects(SERVER) == {"disks": 1, "defined": 1}
        gate.open.set()
        await bench.agent()
        assert (await bench.heard.result(BOOT.key)).error is None
        assert bench.driver.effects(SERVER) == {"disks": 1, "defined": 1, "running": 1}


async def test_a_command_with_secrets_waits_after_a_restart_until_they_come_again(tmp_path: Path) -> None:
    gate = Gate("running")
    command = make_command(secrets=Secrets(admin_password="pw"))
    async with make_bench(tmp_path, script=gate) as bench:
        agent = await bench.agent(drain_timeout=0.0)
        await bench.send(command)
        await gate.reached.wait()
        await bench.stop(agent)
        gate.reached.clear()
        await bench.agent()
        pause = make_command("1/other/do/0.0", uuid="another-server")
        await bench.send(pause)
        await gate.reached.wait()
        gate.open.set()
        await bench.heard.result(pause.key)
        assert bench.heard.results(command.key) == []
        await bench.send(command)
        assert (await bench.heard.result(command.key)).error is None


async def test_a_command_that_waits_for_its_secrets_gives_way_to_newer_work(tmp_path: Path) -> None:
    gate = Gate("running")
    command = make_command(secrets=Secrets(admin_password="pw"))
    async with make_bench(tmp_path, script=gate) as bench:
        agent = await bench.agent(drain_timeout=0.0)
        await bench.send(command)
        await gate.reached.wait()
        await bench.stop(agent)
        await bench.agent()
        destroy = make_command("2/destroy/do/0.0", "destroy", DestroyArgs(uuid=SERVER))
        await bench.send(destroy)
        assert (await bench.heard.result(destroy.key)).error is None
        assert (await bench.heard.result(command.key)).error_kind == "superseded"
        assert bench.driver.left() == []


async def test_a_command_that_waits_for_its_secrets_gets_those_of_another_try(tmp_path: Path) -> None:
    """Its conductor counts another try now: this key will not be sent again."""
    gate = Gate("running")
    command = make_command("1/build/do/0.0", secrets=Secrets(admin_password="pw"))
    async with make_bench(tmp_path, script=gate) as bench:
        agent = await bench.agent(drain_timeout=0.0)
        await bench.send(command)
        await gate.reached.wait()
        await bench.stop(agent)
        gate.open.set()
        agent = await bench.agent()
        again = msgspec.structs.replace(command, key="1/build/do/0.1")
        await bench.send(again)
        assert (await bench.heard.result(again.key)).error is None
        assert (await bench.heard.result(command.key)).error is None
        assert not agent._works
        assert bench.driver.effects(SERVER) == {"disks": 1, "defined": 1, "running": 1}


async def test_a_command_whose_secrets_do_not_come_again_gives_its_server_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its operation may have ended meanwhile. Should it be asked for after all, it is done."""
    gate = Gate("running")
    command = make_command(secrets=Secrets(admin_password="pw"))
    async with make_bench(tmp_path, script=gate) as bench:
        agent = await bench.agent(drain_timeout=0.0)
        await bench.send(command)
        await gate.reached.wait()
        await bench.stop(agent)
        monkeypatch.setattr("kilonova.agent.agent._ASKED_AGAIN", 0.01)
        agent = await bench.agent()
        while agent._works:
            await asyncio.sleep(0.01)
        assert (agent._lanes, bench.heard.results(command.key)) == ({}, [])
        gate.open.set()
        await bench.send(command)
        assert (await bench.heard.result(command.key)).error is None


async def test_a_journal_that_cannot_be_read_is_the_hosts_failure_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_bench(tmp_path) as bench:
        await bench.agent()
        await bench.send(make_command())
        await bench.heard.result(make_command().key)

        async def full(*args: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        rebuild = make_command("2/rebuild/do/0.0", "rebuild", RebuildArgs(spec=make_spec(), marker="2"))
        monkeypatch.setattr(bench.journal, "marked", full)
        await bench.send(rebuild)
        result = await bench.heard.result(rebuild.key)
        assert result.error_kind == "host"
        assert result.error is not None
        assert "its journal cannot be written (database or disk is full)" in result.error


async def test_a_stopping_agent_lets_what_runs_end_and_sends_its_result(tmp_path: Path) -> None:
    gate = Gate("running")
    async with make_bench(tmp_path, script=gate) as bench:
        agent = await bench.agent(drain_timeout=20.0)
        await bench.send(BOOT)
        await gate.reached.wait()
        stopping = asyncio.create_task(agent.stop())
        await asyncio.sleep(0)
        gate.open.set()
        await stopping
        bench.running = None
        assert (await bench.heard.result(BOOT.key)).error is None


async def test_builds_of_a_host_are_bounded_and_deletes_do_not_wait_for_them(tmp_path: Path) -> None:
    gate = Gate("disks")
    async with make_bench(tmp_path, script=gate) as bench:
        await bench.agent(max_concurrent_builds=2)
        for number in range(1, 6):
            await bench.send(make_command(f"{number}/build/do/0.0", uuid=f"server-{number}"))
        async with asyncio.timeout(60):
            while len(gate.waiting) < 2:
                await asyncio.sleep(0.01)
        destroy = make_command("9/destroy/do/0.0", "destroy", DestroyArgs(uuid="server-9"))
        await bench.send(destroy)
        await bench.heard.result(destroy.key)
        assert len(gate.waiting) == 2
        gate.open.set()
        for number in range(1, 6):
            assert (await bench.heard.result(f"{number}/build/do/0.0")).error is None


async def test_power_verbs_end_in_their_states(bench: Bench) -> None:
    await bench.agent()
    spec, just = make_spec(), ServerArgs(uuid=SERVER)
    steps: list[tuple[str, msgspec.Struct, PowerState]] = [
        ("boot", BootArgs(spec=spec, start=False), PowerState.SHUTDOWN),
        ("start", StartArgs(spec=spec), PowerState.RUNNING),
        ("pause", just, PowerState.PAUSED),
        ("unpause", just, PowerState.RUNNING),
        ("suspend", just, PowerState.SUSPENDED),
        ("resume", StartArgs(spec=spec), PowerState.RUNNING),
        ("reboot", RebootArgs(uuid=SERVER, marker="7"), PowerState.RUNNING),
        ("reboot", RebootArgs(uuid=SERVER, marker="8", hard=True, spec=spec), PowerState.RUNNING),
        ("stop", StopArgs(uuid=SERVER), PowerState.SHUTDOWN),
        ("power_state", just, PowerState.SHUTDOWN),
        ("rebuild", RebuildArgs(spec=spec, marker="11", start=False), PowerState.SHUTDOWN),
        ("destroy", DestroyArgs(uuid=SERVER, stop_timeout=5), PowerState.NOSTATE),
        ("destroy", DestroyArgs(uuid=SERVER), PowerState.NOSTATE),
    ]
    for number, (verb, args, state) in enumerate(steps, start=1):
        key = f"{number}/{verb}/do/0.0"
        await bench.send(make_command(key, verb, args))
        result = await bench.heard.result(key)
        assert (result.error, result.data["power_state"]) == (None, int(state)), verb
    assert bench.driver.left() == []


async def test_a_soft_reboot_that_a_boot_of_the_host_cut_short_brings_the_guest_up_with_its_ports(bench: Bench) -> None:
    nic = Nic(port_id="port-1", mac="fa:16:3e:00:00:01", network_id="net-1", mtu=1450, vif_type="bridge")
    spec = make_spec(nics=(nic,))
    await bench.agent()
    await bench.send(make_command(args=BootArgs(spec=spec)))
    await bench.heard.result("1/build/do/0.0")
    await bench.driver.ensure_rebooted(SERVER, hard=False, marker="2", timeout=1.0)
    guest = bench.driver._host.guests[SERVER]
    guest.taps, guest.power_state = [], PowerState.SHUTDOWN
    await bench.send(make_command("2/reboot/do/0.0", "reboot", RebootArgs(uuid=SERVER, marker="2", spec=spec)))
    assert (await bench.heard.result("2/reboot/do/0.0")).error is None
    assert (guest.taps, guest.power_state) == (["port-1"], PowerState.RUNNING)
    assert bench.driver.effects(SERVER)["rebooted"] == 1


async def test_a_rebuild_that_is_done_again_does_not_wipe_what_it_built(tmp_path: Path) -> None:
    async with make_bench(tmp_path) as bench:
        await bench.agent()
        await bench.send(BOOT)
        await bench.heard.result(BOOT.key)
        spec = make_spec(metadata={"sim:fail_after": "running:2:transient"})
        args = RebuildArgs(spec=spec, marker="2")
        await bench.send(make_command("2/rebuild/do/0.0", "rebuild", args))
        assert (await bench.heard.result("2/rebuild/do/0.0")).error_kind == "transient"
        await bench.send(make_command("2/rebuild/do/0.1", "rebuild", args))
        assert (await bench.heard.result("2/rebuild/do/0.1")).error is None
        assert bench.driver.effects(SERVER) == {
            "disks": 2,
            "defined": 2,
            "running": 2,
            "absent": 1,
            "disks_absent": 1,
        }


async def test_the_host_reports_itself_beats_and_names_its_guests(bench: Bench) -> None:
    agent = await bench.agent(report_interval=0.05)
    await bench.heard.until(lambda: len(bench.heard.of(Heartbeat)) > 2)
    [report, *_] = bench.heard.of(HostReport)
    assert (report.host, report.incarnation, report.inventory.vcpus) == ("h1", agent.incarnation, 64)
    assert {beat.binary for beat in bench.heard.of(Heartbeat)} == {"nova-compute"}
    assert report.states == {}
    await bench.send(BOOT)
    await bench.heard.result(BOOT.key)
    assert (await agent.reporter.host_report()).states == {SERVER: 1}
    await agent.reporter.power()
    await bench.heard.until(lambda: any(power.routine for power in bench.heard.of(PowerReport)))
    [power] = [power for power in bench.heard.of(PowerReport) if power.routine]
    assert (power.states, power.complete) == ({SERVER: 1}, True)


async def test_a_report_that_still_holds_is_recalled_and_sent_anew_when_it_is_asked_for(tmp_path: Path) -> None:
    lost: list[Message] = []

    def lose_first(address: str, message: Message) -> Sequence[float]:
        recalled = isinstance(message, Heartbeat) and message.unchanged is not None
        if (isinstance(message, HostReport) or recalled) and len(lost) < 2:
            lost.append(message)
            return ()
        return (0.0,)

    async with make_bench(tmp_path, bus=MemoryBus(tamper=lose_first)) as bench:
        await bench.agent(report_interval=0.2)
        await bench.heard.until(lambda: any(beat.unchanged for beat in bench.heard.of(Heartbeat)))
        assert bench.heard.of(HostReport) == []
        [recalled, *_] = [beat.unchanged for beat in bench.heard.of(Heartbeat) if beat.unchanged]
        await bench.bus.send("agent.h1", ReportWanted())
        await bench.heard.until(lambda: bench.heard.of(HostReport))
        assert [report.digest for report in bench.heard.of(HostReport)] == [recalled.digest]
        assert isinstance(lost[0], HostReport)
        assert lost[0].digest == recalled.digest
        assert isinstance(lost[1], Heartbeat)


async def test_what_changes_is_reported_whole(bench: Bench) -> None:
    agent = await bench.agent()
    await bench.heard.until(lambda: bench.heard.of(HostReport))
    bench.driver.options = msgspec.structs.replace(bench.driver.options, vcpus=3)
    await agent.reporter.inventory()
    await bench.heard.until(lambda: len(bench.heard.of(HostReport)) == 2)
    first, second = bench.heard.of(HostReport)
    assert second.inventory.vcpus == 3
    assert first.digest != second.digest


async def test_a_guest_that_powers_off_by_itself_is_reported_and_a_commands_own_changes_are_not(bench: Bench) -> None:
    await bench.agent()
    await bench.send(BOOT)
    await bench.heard.result(BOOT.key)
    await asyncio.sleep(0.3)
    await bench.driver.guest_changes(SERVER, PowerState.SHUTDOWN)
    await bench.heard.until(lambda: [r for r in bench.heard.of(PowerReport) if not r.complete])
    told = [report.states for report in bench.heard.of(PowerReport) if not report.complete]
    assert told == [{SERVER: int(PowerState.SHUTDOWN)}]


async def test_questions_are_answered_and_a_refusal_says_why(bench: Bench) -> None:
    await bench.agent()
    await bench.send(BOOT)
    await bench.heard.result(BOOT.key)

    async def ask(what: str, **args: object) -> dict[str, object] | str | None:
        question = ServerQuestion(server_uuid=SERVER, what=what, args=args)
        answer = await bench.bus.ask("agent.h1", question, 5.0)
        return answer.error or answer.data

    assert await ask("console_output", lines=1) == {"output": "guest ready web\n"}
    assert await ask("power_state") == {"power_state": 1}
    assert isinstance(await ask("diagnostics"), dict)
    assert "console_output" in str(await ask("weather"))


async def test_an_agent_whose_results_are_lost_answers_when_asked_again(tmp_path: Path) -> None:
    def lose_results(address: str, message: Message) -> Sequence[float]:
        return () if isinstance(message, Result) and lossy else (0.0,)

    lossy = True
    async with make_bench(tmp_path, bus=MemoryBus(tamper=lose_results)) as bench:
        agent = await bench.agent()
        await bench.send(BOOT)
        async with asyncio.timeout(10):
            while agent._works or not bench.driver.effects(SERVER).get("running"):
                await asyncio.sleep(0.01)
        lossy = False
        await bench.send(BOOT)
        assert (await bench.heard.result(BOOT.key)).error is None
        assert bench.driver.effects(SERVER)["running"] == 1


async def test_a_journal_that_cannot_be_written_sends_the_work_to_another_host(bench: Bench) -> None:
    await bench.agent()
    await bench.journal._writer.run(lambda db: db.execute("PRAGMA max_page_count = 1"))
    await bench.send(make_command(args=BootArgs(spec=make_spec(user_data="x" * 200_000))))
    result = await bench.heard.result(BOOT.key)
    assert result.error_kind == "host"
    assert "full" in (result.error or "")
    assert bench.driver.left() == []
