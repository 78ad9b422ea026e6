from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kilonova.agent.driver import Secrets
from kilonova.agent.journal import Journal, Key, Recorded, State, host_lock
from kilonova.bus.messages import Command, Result
from kilonova.errors import Conflict, Invalid
from tests.support.agents import SERVER, make_command, make_spec


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.start()
    yield journal
    await journal.close()


def ended(command: Command, **values: object) -> Result:
    return Result(key=command.key, operation_id=command.operation_id, host="h1", **values)  # type: ignore[arg-type]


async def test_a_key_is_new_once_then_running_then_done_with_its_result(journal: Journal) -> None:
    command = make_command()
    assert (await journal.record("h1", command, 1.0)).state is State.NEW
    assert (await journal.record("h1", command, 2.0)).state is State.RUNNING
    await journal.finish("h1", ended(command, data={"power_state": 1}), 3.0)
    again = await journal.record("h1", command, 4.0)
    assert again.state is State.DONE
    assert again.result == ended(command, data={"power_state": 1})


async def test_a_key_of_another_server_is_not_answered_with_what_came_of_that(journal: Journal) -> None:
    command = make_command()
    await journal.record("h1", command, 1.0)
    await journal.finish("h1", ended(command), 2.0)
    other = msgspec.structs.replace(command, server_uuid="another")
    assert await journal.record("h1", other, 3.0) == Recorded(State.FOREIGN)
    assert (await journal.record("h1", command, 4.0)).state is State.DONE


async def test_hosts_in_one_file_know_nothing_of_each_other(journal: Journal) -> None:
    await journal.record("h1", make_command(), 1.0)
    assert (await journal.record("h2", make_command(), 1.0)).state is State.NEW
    assert len(await journal.unfinished("h2")) == 1
    assert await journal.unfinished("h3") == []


@pytest.mark.parametrize(
    ("seen", "late", "state"),
    [
        ("2/destroy/do/0.0", "1/build/do/0.0", State.OLD),
        ("1/build/undo/0.0", "1/build/do/0.0", State.OLD),
        ("1/build/do/1.0", "1/build/do/0.0", State.OLD),
        ("1/build/do/1.0", "1/build/undo/0.0", State.OLD),
        ("1/build/do/0.0", "1/build/undo/0.0", State.NEW),
        ("1/build/undo/0.0", "1/build/do/1.0", State.NEW),
        ("1/prepare/do/0.0", "1/start/do/0.0", State.NEW),
        ("1/start/undo/0.0", "1/prepare/undo/0.0", State.NEW),
        ("1/build/do/0.0", "2/destroy/do/0.0", State.NEW),
    ],
)
async def test_what_is_older_than_something_seen_is_refused(
    journal: Journal, seen: str, late: str, state: State
) -> None:
    await journal.record("h1", make_command(seen), 1.0)
    assert (await journal.record("h1", make_command(late), 2.0)).state is state


async def test_a_late_copy_of_what_newer_work_left_behind_is_refused_and_goes_in_the_end(journal: Journal) -> None:
    left = make_command("1/build/do/0.0", secrets=Secrets(admin_password="pw"))
    await journal.record("h1", left, 1.0)
    assert (await journal.record("h1", make_command("1/build/do/0.1"), 1.0)).state is State.NEW
    assert (await journal.record("h1", left, 1.0)).state is State.RUNNING
    newer = make_command("2/destroy/do/0.0")
    await journal.record("h1", newer, 2.0)
    assert (await journal.record("h1", left, 2.0)).state is State.OLD
    await journal.finish("h1", ended(newer), 2.0)
    await journal.prune(2.0, 0.0)
    assert len(await journal.unfinished("h1")) == 2
    await journal.prune(3.0, 0.0)
    assert await journal.unfinished("h1") == []


async def test_a_conductor_that_counts_its_tries_anew_is_not_refused(journal: Journal) -> None:
    """Its predecessor's first try may never have left the broker."""
    await journal.record("h1", make_command("1/build/do/0.3"), 1.0)
    assert (await journal.record("h1", make_command("1/build/do/0.0"), 2.0)).state is State.NEW


async def test_an_older_result_is_still_told_after_newer_work_was_seen(journal: Journal) -> None:
    old = make_command("1/build/do/0.0")
    await journal.record("h1", old, 1.0)
    await journal.finish("h1", ended(old), 1.0)
    await journal.record("h1", make_command("2/destroy/do/0.0"), 2.0)
    assert (await journal.record("h1", old, 3.0)).state is State.DONE


async def test_the_first_result_stands(journal: Journal) -> None:
    command = make_command()
    await journal.record("h1", command, 1.0)
    await journal.finish("h1", ended(command, data={"n": 1}), 1.0)
    await journal.finish("h1", ended(command, data={"n": 2}), 1.0)
    assert (await journal.record("h1", command, 1.0)).result == ended(command, data={"n": 1})


async def test_secrets_never_reach_the_file_and_payloads_leave_it_at_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.start()
    command = make_command(secrets=Secrets(admin_password="hush-hush", image_token="tok-en"))
    await journal.record("h1", command, 1.0)
    [entry] = await journal.unfinished("h1")
    assert entry.had_secrets
    assert entry.command.secrets is None
    await journal.finish("h1", ended(command), 2.0)
    await journal.close()
    text = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"hush-hush" not in text
    assert b"tok-en" not in text
    assert make_spec().hostname.encode() + b"\xa9" not in text
    assert b"display_name" not in text, "the payload was kept"


async def test_payloads_leave_the_write_ahead_log_while_the_journal_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.start()
    command = make_command()
    await journal.record("h1", command, 1.0)
    await journal.finish("h1", ended(command), 2.0)

    async def erased() -> bool:
        return b"display_name" not in b"".join([path.read_bytes() for path in tmp_path.iterdir()])

    async with asyncio.timeout(20):
        while not await erased():
            await asyncio.sleep(0.1)
    await journal.close()


async def test_unfinished_commands_come_back_in_order_with_the_newest_reply_address(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    await journal.start()
    for number in (1, 2, 3):
        await journal.record("h1", make_command(f"{number}/build/do/0.0", uuid=f"server-{number}"), 1.0)
    await journal.record("h1", make_command("2/build/do/0.0", uuid="server-2", reply_to="conductor.b"), 2.0)
    await journal.finish("h1", ended(make_command("1/build/do/0.0")), 2.0)
    await journal.close()
    journal = Journal(path)
    await journal.start()
    open_ones = [(entry.command.key, entry.command.reply_to) for entry in await journal.unfinished("h1")]
    assert open_ones == [("2/build/do/0.0", "conductor.b"), ("3/build/do/0.0", "conductor.a")]
    await journal.close()


async def test_pruning_drops_old_results_and_tombstones_and_keeps_what_runs(journal: Journal) -> None:
    done, running = make_command("1/build/do/0.0", uuid="done"), make_command("2/build/do/0.0", uuid="running")
    await journal.record("h1", done, 1.0)
    await journal.finish("h1", ended(done), 1.0)
    await journal.record("h1", running, 1.0)
    assert await journal.prune(100.0, 100.0) == 1
    assert (await journal.record("h1", done, 1.0)).state is State.NEW
    assert (await journal.record("h1", running, 1.0)).state is State.RUNNING
    late = make_command("1/build/do/0.0", uuid="running")
    assert (await journal.record("h1", with_key(late, "1/other/do/0.0"), 1.0)).state is State.OLD


def with_key(command: Command, key: str) -> Command:
    return msgspec.structs.replace(command, key=key)


async def test_the_journal_prunes_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", keep_results=100.0, keep_tombstones=100.0)
    await journal.start()
    old = make_command("1/build/do/0.0")
    await journal.record("h1", old, 1.0)
    await journal.finish("h1", ended(old), 1.0)
    await journal.record("h1", make_command("2/build/do/0.0", uuid="other"), 5000.0)
    assert (await journal.record("h1", old, 5000.0)).state is State.NEW
    await journal.close()


async def test_many_writers_share_commits(journal: Journal) -> None:
    before = journal.commits
    commands = [make_command(f"{n}/build/do/0.0", uuid=f"server-{n}") for n in range(1, 301)]
    states = await asyncio.gather(*(journal.record("h1", command, 1.0) for command in commands))
    assert {recorded.state for recorded in states} == {State.NEW}
    assert journal.commits - before < 30


async def test_a_malformed_key_is_refused_and_harms_nobody_in_its_batch(journal: Journal) -> None:
    with pytest.raises(Invalid, match="nonsense"):
        Key.parse("nonsense")
    good, bad = await asyncio.gather(
        journal.record("h1", make_command(), 1.0),
        journal.record("h1", with_key(make_command(), "1/x/maybe/0"), 1.0),
        return_exceptions=True,
    )
    assert isinstance(bad, Invalid)
    assert not isinstance(good, BaseException)
    assert good.state is State.NEW


async def test_an_error_of_the_file_fails_the_caller_and_stores_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.start()
    await journal._writer.run(lambda db: db.execute("PRAGMA max_page_count = 1"))
    big = make_command(args=make_spec(display_name="x" * 1_000_000))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await journal.record("h1", big, 1.0)
    await journal._writer.run(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
    assert (await journal.record("h1", big, 1.0)).state is State.NEW
    await journal.close()


async def test_marks_are_remembered(journal: Journal) -> None:
    await journal.record("h1", make_command(), 1.0)
    assert await journal.marked("h1", SERVER) is None
    await journal.mark("h1", SERVER, "rebuild/1")
    await journal.record("h1", make_command("2/build/do/0.0"), 1.0)
    assert await journal.marked("h1", SERVER) == "rebuild/1"


def test_a_second_agent_on_the_same_host_and_directory_is_refused(tmp_path: Path) -> None:
    with host_lock(tmp_path, "h1"):
        with pytest.raises(Conflict, match=f"process {os.getpid()}"), host_lock(tmp_path, "h1"):
            pass
        with host_lock(tmp_path, "h2"):
            pass
    with host_lock(tmp_path, "h1"):
        pass


def test_what_was_recorded_survives_kill_9(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, sys
        from kilonova.agent.journal import Journal
        from tests.support.agents import make_command

        async def main():
            journal = Journal(sys.argv[1])
            await journal.start()
            number = 0
            while True:
                number += 1
                await journal.record("h1", make_command(f"{number}/build/do/0.0", uuid=f"server-{number}"), 1.0)
                print(number, flush=True)

        asyncio.run(main())
    """)
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0
        while last < 50:
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        last = int((process.stdout.read().splitlines() or [str(last)])[-1])

    async def check() -> None:
        journal = Journal(path)
        await journal.start()
        keys = [entry.command.key for entry in await journal.unfinished("h1")]
        await journal.close()
        assert len(keys) in (last, last + 1)

    asyncio.run(check())
