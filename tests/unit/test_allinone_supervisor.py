"""Children are started, watched and started again; what they said last becomes the reason."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kilonova.allinone import processes, supervisor
from kilonova.allinone.errors import CloudError
from kilonova.allinone.services import ServiceSpec
from kilonova.allinone.supervisor import Child, Keeper

SERVER = """
import http.server, json, sys
spec = json.load(sys.stdin)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", spec["port"]), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(supervisor, "PROBE_PERIOD", 0.05)
    monkeypatch.setattr(supervisor, "PROBE_TIMEOUT", 0.3)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def make_child(tmp_path: Path, script: str) -> Child:
    port = free_port()
    spec = ServiceSpec(
        name="server",
        command=(sys.executable, "-W", "ignore", "-c", script),
        stdin={"port": port},
        health_url=f"http://127.0.0.1:{port}/",
        port=port,
    )
    return Child(spec, run_dir=tmp_path, log_dir=tmp_path)


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    child = make_child(tmp_path, SERVER)
    await child.start()
    yield child
    await child.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # what is waited for happens in another process
            await asyncio.sleep(0.01)


async def test_a_started_child_answers_and_a_stopped_one_is_gone(child: Child) -> None:
    status = child.status()
    assert (status.name, status.state, status.restarts) == ("server", "ready", 0)
    assert status.pid is not None
    identity = processes.identify(status.pid)
    assert identity is not None
    await child.stop()
    assert not processes.is_running(identity)
    assert child.status().state == "stopped"
    assert child.status().pid is None


async def test_a_killed_child_is_started_again_and_counted(child: Child) -> None:
    first = child.status().pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.status().state != "ready")
    await until(lambda: child.status().state == "ready")
    assert child.status().pid != first
    assert child.status().restarts == 1


async def test_a_hung_child_is_started_again(child: Child) -> None:
    first = child.status().pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    await until(lambda: child.status().state != "ready")
    assert "did not answer" in child.status().detail
    await until(lambda: child.status().state == "ready")
    assert child.status().pid != first


async def test_why_a_child_waits_is_in_its_status(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 30.0)
    first = child.status().pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.status().state == "waiting")
    assert "signal 9" in child.status().detail
    assert child.status().pid is None


async def test_a_child_that_cannot_start_gives_the_end_of_its_log_as_the_reason(tmp_path: Path) -> None:
    child = make_child(tmp_path, "import sys; print('noise'); sys.exit('the database is damaged')")
    (tmp_path / "server.log").write_text("what an earlier run said\n")
    with pytest.raises(CloudError, match=r"status 1: noise\nthe database is damaged") as caught:
        await child.start()
    assert str(tmp_path / "server.log") in (caught.value.remedy or "")


async def test_what_an_earlier_run_left_behind_is_ended_first(tmp_path: Path) -> None:
    leftover = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
    identity = processes.identify(leftover.pid)
    assert identity is not None
    processes.remember(tmp_path / "server.json", identity)
    child = make_child(tmp_path, SERVER)
    await child.start()
    assert not processes.is_running(identity)
    await leftover.wait()
    await child.stop()


async def test_a_large_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "KEEP_LOG", 100)
    (tmp_path / "server.log").write_text("x" * 101)
    child = make_child(tmp_path, "raise SystemExit('no')")
    with pytest.raises(CloudError):
        await child.start()
    assert (tmp_path / "server.log.1").read_text() == "x" * 101
    assert (tmp_path / "server.log").read_text() == "no\n"


async def test_children_get_nothing_of_our_clients_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_PASSWORD", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    child = make_child(tmp_path, "import os; raise SystemExit(' '.join(sorted(os.environ)))")
    with pytest.raises(CloudError) as caught:
        await child.start()
    assert "PATH" in caught.value.message
    assert "OS_PASSWORD" not in caught.value.message
    assert "PYTHONPATH" not in caught.value.message


async def test_a_kept_daemon_is_started_again_however_often_that_fails() -> None:
    alive = True
    outcomes = iter([None, OSError("no room"), OSError("no room"), None])

    async def ensure() -> None:
        nonlocal alive
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        alive = True

    keeper = Keeper("daemon", ensure=ensure, find=lambda: 42 if alive else None, period=0.01)
    await keeper.start()
    assert keeper.status().state == "ready"
    alive = False
    await until(lambda: "no room" in keeper.status().detail)
    await until(lambda: keeper.status().state == "ready")
    assert keeper.status().restarts == 3
    await keeper.stop()
