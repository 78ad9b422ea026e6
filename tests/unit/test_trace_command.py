"""`kilonova trace`: every server's operations as waterfalls, and clear words where there is none to show."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.allinone.errors import CloudError
from kilonova.cli import guarded, trace_show
from kilonova.cli.app import app
from kilonova.cli.waterfall import Bar, bars, drawn, total, tries
from kilonova.db import trace as rows
from kilonova.db.trace import TracedOperation, TracedStep
from kilonova.engine import store
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud
from kilonova.testing.identity import PROJECT
from kilonova.testing.network import FakeNetworking
from tests.support.port_servers import booted, create, gone, settled

ZERO = dt.datetime(2026, 11, 25, 12, 0, 0)  # noqa: DTZ001  # as the database stores it


def at(seconds: float) -> dt.datetime:
    return ZERO + dt.timedelta(seconds=seconds)


def step(name: str, began: float, ended: float, **more: object) -> TracedStep:
    values: dict[str, object] = {
        "operation_id": 2, "phase": "do", "attempt": 0, "host": None, "error": None, "epoch": 1, "waits": [],
    }  # fmt: skip
    return TracedStep(name=name, started_at=at(began), finished_at=at(ended), **(values | more))  # type: ignore[arg-type]


def operation(*steps: TracedStep, **more: object) -> TracedOperation:
    values: dict[str, object] = {
        "id": 2, "kind": "boot", "action": "create", "request_id": "req-2", "state": "done", "phase": "do", "step": 2,
        "attempt": 0, "epoch": 1, "lease_until": 0.0, "progress": None, "error": None, "traceparent": None,
        "created_at": ZERO, "finished_at": steps[-1].finished_at if steps else None,
    }  # fmt: skip
    return TracedOperation(**(values | more), steps=steps)  # type: ignore[arg-type]


def lines(made: list[Bar]) -> list[tuple[str, float, float]]:
    return [(bar.label, round(bar.began, 3), round(bar.seconds, 3)) for bar in made]


def test_steps_waits_and_gaps_stand_in_their_order() -> None:
    build = step("build", 2.0, 5.0, host="h1", waits=[("turn", "boot on h1", 0.0, 1.0), ("host", "boot on h1", 1.0, 2)])
    made = bars(operation(step("schedule", 0.5, 1.0), build), [], at(9))
    assert lines(made) == [
        ("until a conductor took it", 0.0, 0.5),
        ("schedule", 0.5, 0.5),
        ("between steps", 1.0, 1.0),
        ("build", 2.0, 3.0),
        ("turn of boot", 2.0, 1.0),
        ("host: boot", 3.0, 2.0),
    ]
    assert [bar.depth for bar in made] == [0, 0, 0, 0, 1, 1]
    assert [bar.host for bar in made[3:]] == ["h1"] * 3


def test_tries_and_attempts_are_told_and_pauses_of_one_reason_are_one_line() -> None:
    waits = [("retry", "no answer", 0.1, 0.2), ("host", "boot on h1", 0.3, 0.1), ("retry", "no answer", 0.4, 0.4)]
    tried = step("build", 0.0, 1.0, waits=waits, attempt=1, error="No more.")
    assert tries(tried) == 3
    made = bars(operation(tried), [], at(9))
    assert (made[0].kind, made[0].note) == ("failed", "attempt 2; 3 tries; No more.")
    pause = made[1]
    assert (pause.label, pause.spans, pause.note) == (
        "pause before another try, 2 times", ((0.1, 0.2), (0.4, 0.4)), "no answer",
    )  # fmt: skip


def test_a_takeover_shows_as_a_gap_with_its_reason() -> None:
    made = bars(operation(step("schedule", 0.0, 1.0), step("build", 31.0, 32.0, epoch=2)), [], at(40))
    assert lines(made)[1] == ("until another conductor took it", 1.0, 30.0)
    assert "died" in made[1].note


def test_waiting_behind_another_operation_is_told_from_waiting_for_a_conductor() -> None:
    first = operation(id=1, kind="attach", request_id="req-1", created_at=at(-1), finished_at=at(3))
    made = bars(operation(step("schedule", 4.0, 5.0)), [first], at(9))
    assert lines(made)[:2] == [
        ("its turn, behind another operation", 0.0, 3.0),
        ("until a conductor took it", 3.0, 1.0),
    ]
    assert made[0].note == "attach, req-1"


@pytest.mark.parametrize(
    ("more", "label", "note"),
    [
        ({"state": "ready"}, "waits for a conductor", ""),
        ({"state": "running", "lease_until": 0.0, "step": 1}, "lost", "renews its lease no more"),
        ({"state": "running", "lease_until": 1e12, "step": 1}, "build", "under way"),
        ({"state": "running", "lease_until": 1e12, "step": 1, "progress": {"stage": "image", "percent": 40}},
         "build", "under way: image, 40 %"),
        ({"state": "running", "lease_until": 1e12, "phase": "undo", "step": 1}, "undo build", "under way"),
    ],
)  # fmt: skip
def test_what_is_under_way_is_told(more: dict[str, object], label: str, note: str) -> None:
    open_one = operation(step("schedule", 0.0, 1.0), finished_at=None, **more)
    last = bars(open_one, [], at(4))[-1]
    assert (last.label, last.began, last.seconds) == (label, 1.0, 3.0)
    assert note in last.note
    assert total(open_one, at(4)) == 4.0


def test_bars_are_drawn_to_scale_and_each_leaves_a_mark() -> None:
    assert drawn(Bar("x", "step", ((0.0, 5.0),)), 10.0, 10) == "█████     "
    assert drawn(Bar("x", "step", ((9.9999, 0.0),)), 10.0, 10) == "         █"
    assert drawn(Bar("x", "step", ((0.0, 1.0), (8.0, 1.0))), 10.0, 10) == "█       █ "
    assert drawn(Bar("x", "step", ((0.0, 0.0),)), 0.0, 4) == "█   "


@pytest.fixture
def state_dir(cloud: TestCloud, tmp_path: Path) -> Path:
    """A state directory whose cloud is the one of the tests."""
    (tmp_path / "state/kilonova").mkdir(parents=True)
    (tmp_path / "state/kilonova/compute.sqlite").symlink_to(tmp_path / "compute.sqlite")
    return tmp_path / "state"


async def run(state_dir: Path, *arguments: str) -> str:
    result = await asyncio.to_thread(
        CliRunner(env={"COLUMNS": "200"}).invoke, app, ["trace", "--state-dir", str(state_dir), *arguments]
    )
    if isinstance(result.exception, CloudError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


async def test_a_servers_life_is_shown(state_dir: Path, cloud: TestCloud, api: Client, network: FakeNetworking) -> None:
    network.add_network("net", project_id=PROJECT)
    server = await booted(api, name="web", metadata={"sim:fail_at": "disks:1:transient"})
    assert (await api("POST", f"/servers/{server['id']}/action", {"reboot": {"type": "HARD"}})).status_code == 202
    await settled(api, server["id"])
    shown = await run(state_dir, "web")
    assert server["id"] in shown
    boot, reboot = shown.index("boot_with_ports  done"), shown.index("reboot  done")
    assert boot < reboot
    for expected in ("schedule", "ports", "build", "2 tries", "Simulated failure", "host: prepare",
                     "Networking: until the ports are wired", "Networking: to make and bind ports"):  # fmt: skip
        assert expected in shown[boot:reboot], shown
    assert "host: reboot" in shown[reboot:]
    await gone(api, server["id"])
    assert "(deleted)" in await run(state_dir, server["id"])
    assert (await run(state_dir, "web", "--limit", "1")).count("req-") == 1
    action = (await api("GET", f"/servers/{server['id']}/os-instance-actions", version="2.90")).json()
    request = action["instanceActions"][-1]["request_id"]
    assert (await run(state_dir, server["id"], "--request", request)).count("req-") == 1


async def test_a_failed_attempt_and_the_next_are_shown(state_dir: Path, cloud: TestCloud, api: Client) -> None:
    answer = await create(api, "none", metadata={"sim:fail_at": "defined:1:host"})
    uuid = answer.json()["server"]["id"]
    assert (await settled(api, uuid))["status"] == "ERROR"
    shown = await run(state_dir, uuid)
    assert "undo build" in shown
    assert "boot  failed" in shown


async def test_what_cannot_be_shown_is_said_with_a_remedy(state_dir: Path, tmp_path: Path, api: Client) -> None:
    first, second = await booted(api, "none", name="twin"), await booted(api, "none", name="twin")
    with pytest.raises(CloudError, match="2 servers are called 'twin'") as ambiguous:
        await run(state_dir, "twin")
    assert first["id"] in ambiguous.value.message
    assert second["id"] in ambiguous.value.message
    assert ambiguous.value.remedy == "name one by its id"
    # The living one is meant when the other is gone.
    await gone(api, first["id"])
    assert second["id"] in await run(state_dir, "twin")
    with pytest.raises(CloudError, match="no server has the id or name 'nobody'"):
        await run(state_dir, "nobody")
    with pytest.raises(CloudError, match="has no operation of request req-x"):
        await run(state_dir, second["id"], "--request", "req-x")
    with pytest.raises(CloudError, match=r"there is no cloud in .*/elsewhere"):
        await run(tmp_path / "elsewhere", "twin")


@pytest.mark.parametrize(
    "url", ["mysql://nova:hidden@127.0.0.1:1/nova", "postgresql://nova:hidden@127.0.0.1:1/nova", ""]
)
def test_a_database_that_is_away_or_empty_is_said_in_a_line(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask() -> None:
        trace_show.show(url or f"sqlite:///{tmp_path}/empty.sqlite", "web", limit=10, request=None)

    with pytest.raises(SystemExit, match="1"):
        guarded(ask)
    error, remedy = capsys.readouterr().err.splitlines()
    assert error.startswith("error: the database does not answer: ")
    assert ("127.0.0.1" if url else "no such table") in error
    assert "hidden" not in error
    assert remedy.startswith("what to do: kilonova doctor")


async def test_waits_are_stored_with_their_step_and_bounded(cloud: TestCloud, api: Client) -> None:
    server = await booted(api, "none")

    async def work(tx: store.Tx) -> list[TracedOperation]:
        return await rows.operations_of(tx, server["id"], limit=5)

    (boot,) = await cloud.rt.db.read(work)
    schedule, build = boot.steps
    assert [what for what, *_ in schedule.waits] == ["scheduler"]
    ((what, details, began, seconds),) = [wait for wait in build.waits if wait[0] == "host"]
    assert (what, details) == ("host", "boot on host-1")
    length = (build.finished_at - build.started_at).total_seconds()
    assert 0 <= began <= began + seconds <= length + 0.001
    assert (schedule.epoch, build.epoch) == (1, 1)
