"""Processes are told apart by pid and start time; daemons' orphans are collected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from kilonova.allinone import inside, processes, reaper

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def test_a_process_is_recalled_as_long_as_it_lives(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    processes.remember(tmp_path / "record", identity)
    assert processes.recall(tmp_path / "record") == identity
    processes.end(identity, grace=5)
    assert sleeper.wait() == -signal.SIGTERM or sleeper.returncode == 0
    assert processes.recall(tmp_path / "record") is None


def test_another_process_with_the_same_pid_is_not_taken_for_it(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    earlier = msgspec.structs.replace(identity, started=identity.started - 1)
    processes.remember(tmp_path / "record", earlier)
    assert processes.recall(tmp_path / "record") is None
    processes.end(earlier, grace=1)
    assert sleeper.poll() is None
    before_reboot = msgspec.structs.replace(identity, boot="another boot")
    assert not processes.is_running(before_reboot)


@pytest.mark.parametrize("content", [b"", b'{"pid": 1', b"[]", b'{"pid": 1, "started": "x", "boot": ""}'])
def test_a_damaged_record_names_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record").write_bytes(content)
    assert processes.recall(tmp_path / "record") is None


def test_a_detached_process_holds_nothing_that_was_open_here(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    pid = processes.spawn_detached(SLEEP, tmp_path / "log", {})
    identity = processes.identify(pid)
    assert identity is not None
    try:
        os.close(writing)
        os.set_blocking(reading, False)
        assert os.read(reading, 1) == b""  # its end: nobody has the other side
        assert processes.is_running(identity)
    finally:
        os.close(reading)
        processes.end(identity, grace=5)


def test_a_zombie_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    sleeper.kill()
    _wait_until(lambda: not processes.is_running(identity))
    assert sleeper.returncode is None  # nobody has waited for it: it is a zombie


def test_a_process_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        identity = processes.identify(process.pid)
        assert identity is not None
        processes.end(identity, grace=0.1)
        assert not processes.is_running(identity)


def test_a_detached_process_has_a_session_of_its_own_and_writes_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import os, sys; print(os.getsid(0) == os.getpid()); print('oops', file=sys.stderr)"
    pid = processes.spawn_detached([sys.executable, "-c", script], log, {})
    _wait_until(lambda: processes.identify(pid) is None)
    assert sorted(log.read_text().split()) == ["True", "oops"]


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    child = (
        f"import sys, time; sys.path.insert(0, {str(Path(inside.__file__).parents[2])!r})\n"
        "from kilonova.allinone.inside import die_with\n"
        "import os; die_with(os.getppid()); print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        identity = processes.identify(int(process.stdout.readline()))
        assert identity is not None
        process.kill()
    _wait_until(lambda: not processes.is_running(identity))


def test_the_reaper_collects_orphans_and_outlives_the_daemon() -> None:
    daemon = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'],"
        "stdin=0); print(p.pid, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__, sys.executable, "-W", "ignore", "-c", daemon],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        orphan = int(process.stdout.readline())
        _wait_until(lambda: f"PPid:\t{process.pid}\n" in Path(f"/proc/{orphan}/status").read_text())
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(30) == 0
        assert not Path(f"/proc/{orphan}").exists()


def _wait_until(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
