"""What `kilonova doctor` says of hosts, consoles and a cloud that is not there, without any of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import websockets.asyncio.server

from kilonova.agent.condition import condition
from kilonova.allinone.state import open_state_dir
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, HostQuestion, Message
from kilonova.console.proxy.proxy import LATER, REFUSED
from kilonova.db.hosts import Service
from kilonova.doctor import console, galera, roles
from kilonova.doctor.database import beyond
from kilonova.doctor.examine import Examination
from kilonova.doctor.findings import exit_code, ok, warning, wrong
from kilonova.doctor.site import of_state_dir
from kilonova.errors import HostFailure
from kilonova.testing.cloud import TestCloud


def service(host: str = "h1", *, binary: str = "nova-compute", up: bool = True) -> Service:
    return Service(
        id=1, uuid="u", host=host, binary=binary, disabled=False, disabled_reason=None, forced_down=False,
        availability_zone=None, last_seen=1.0, created_at=None, up=up,  # type: ignore[arg-type] # nobody looks
    )  # fmt: skip


def test_the_worst_decides_the_exit_code() -> None:
    assert exit_code([ok("a", "x")]) == 0
    assert exit_code([ok("a", "x"), warning("b", "y", "z")]) == 1
    assert exit_code([wrong("c", "x", "z"), warning("b", "y", "z"), ok("a", "x")]) == 2


async def test_hosts_say_what_time_it_is_and_whether_their_hypervisor_answers(cloud: TestCloud) -> None:
    services = [service(name) for name in cloud.hosts]
    found = await roles.ask_hosts(cloud.rt.bus, services, 0.0)
    assert {each.result for each in found} == {"ok"}
    assert {each.check for each in found} == {f"{kind}: {name}" for kind in ("clock", "host") for name in cloud.hosts}
    # This machine's clock is ten seconds ahead: so is theirs, which agrees with it.
    found = await roles.ask_hosts(cloud.rt.bus, services, 10.0)
    clocks = [each for each in found if each.check.startswith("clock")]
    assert {each.result for each in clocks} == {"warning"}
    assert clocks[0].text.startswith("10.0 s ahead")


@pytest.mark.parametrize(
    ("answer", "result", "said"),
    [
        (lambda: Answer(data={"clock": time.time() - 40, "hypervisor": "QEMU 7"}), "wrong", "s behind"),
        (lambda: Answer(data={"clock": time.time() + 5, "hypervisor": "QEMU 7"}), "warning", "s ahead"),
        (lambda: Answer(data={"clock": time.time(), "failure": "libvirt is away"}), "wrong", "libvirt is away"),
        (lambda: Answer(error="The receiver does not understand this message."), "warning", "does not understand"),
    ],
)
async def test_a_host_that_is_not_well(answer: Callable[[], Answer], result: str, said: str) -> None:
    bus = MemoryBus()
    await bus.start()

    async def answered(message: Message) -> Answer:
        assert message == HostQuestion()
        return answer()

    await bus.listen("agent.h1", answered)
    found = [each for each in await roles.ask_hosts(bus, [service()], 0.0) if each.result != "ok"]
    assert [(each.result, said in each.text) for each in found] == [(result, True)]
    assert found[0].fix
    await bus.close()


async def test_a_hypervisor_that_is_away_is_said_by_its_agent(
    cloud: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host, *_) = cloud.hosts.values()

    async def away() -> Any:
        raise HostFailure("libvirt on this host cannot be reached")

    monkeypatch.setattr(host.driver, "inventory", away)
    answer = await condition(host.driver, clock=lambda: 7.0)
    assert answer.data == {"failure": "libvirt on this host cannot be reached", "clock": 7.0}


def test_roles_of_which_some_or_none_are_up() -> None:
    both = [service("a", binary="nova-conductor"), service("b", binary="nova-conductor", up=False)]
    assert roles._control("nova-conductor", both).result == "warning"
    assert "not heard of: b" in roles._control("nova-conductor", both).text
    assert roles._control("nova-conductor", both[1:]).result == "wrong"
    assert roles._computes([service(up=False)]).result == "wrong"
    assert roles._computes([service(), service("h2", up=False)]).result == "warning"
    assert roles._computes([service()]).result == "ok"


Handler = Callable[[websockets.asyncio.server.ServerConnection], Awaitable[None]]


@pytest.mark.parametrize(
    ("code", "result", "said"),
    [
        (REFUSED, "ok", "consoleauth answers"),
        (LATER, "wrong", "consoleauth does not answer the proxy: nobody there"),
        (1011, "wrong", "closed with 1011"),
    ],
)
async def test_the_way_of_a_token(code: int, result: str, said: str) -> None:
    async def close(connection: websockets.asyncio.server.ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path.startswith("/?token=doctor-")
        await connection.close(code, "nobody there")

    async with websockets.asyncio.server.serve(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        finding = await console._token(f"http://127.0.0.1:{port}/vnc_auto.html")
    assert finding.result == result
    assert said in finding.text


async def test_a_cloud_that_does_not_run(tmp_path: Path) -> None:
    open_state_dir(tmp_path / "cloud")
    site, found = of_state_dir(tmp_path / "cloud")
    assert site is not None
    examination = Examination(site, found.append)
    await examination.run()
    wrong_ones = {each.check: each.fix for each in found if each.result == "wrong" and each.check != "disk"}
    assert list(wrong_ones) == ["cloud", "database"]
    assert (wrong_ones["cloud"] or "").startswith("kilonova up --state-dir")
    # Nothing that could only be old news, or somebody else's.
    assert not {each.check for each in found} & {"identity", "image", "hosts", "console: page"}


def test_without_any_cloud_it_says_what_to_name(tmp_path: Path) -> None:
    # In a process of its own: the command keeps logs quiet.
    command = [sys.executable, "-m", "kilonova.cli", "doctor"]
    done = subprocess.run([*command, "--config-file", str(tmp_path / "none.conf")], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"does not exist" in done.stdout


def test_what_asking_took_is_no_difference_of_clocks() -> None:
    assert beyond(10.0, before=9.0, after=14.0) == 0.0
    assert beyond(8.0, before=9.0, after=14.0) == 1.0
    assert beyond(20.0, before=9.0, after=14.0) == -6.0


_NODE = {
    "wsrep_on": "ON", "wsrep_node_name": "n1", "wsrep_cluster_size": "3", "wsrep_cluster_status": "Primary",
    "wsrep_ready": "ON", "wsrep_local_state": "4", "wsrep_local_state_comment": "Synced", "wsrep_desync": "OFF",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "result", "said", "fix"),
    [
        ({}, "ok", "Primary and Synced, one of 3", ""),
        ({"wsrep_cluster_size": "5"}, "ok", "one of 5", ""),
        ({"wsrep_cluster_size": "2"}, "warning", "only one of 2", "three are the least"),
        ({"wsrep_cluster_status": "non-Primary"}, "wrong", "non-Primary", "pc.bootstrap"),
        ({"wsrep_cluster_status": "Disconnected", "wsrep_ready": "OFF"}, "wrong", "1047", "wsrep_cluster_address"),
        ({"wsrep_ready": "OFF"}, "wrong", "1047", "pc.bootstrap"),
        ({"wsrep_local_state": "3", "wsrep_local_state_comment": "Joined"}, "warning", "not caught up", "Synced"),
        ({"wsrep_local_state": "2", "wsrep_local_state_comment": "Donor/Desynced"}, "warning", "fills another", "next"),
        (
            {"wsrep_local_state": "2", "wsrep_local_state_comment": "Donor/Desynced", "wsrep_desync": "ON"},
            "warning", "taken out", "wsrep_desync = OFF",
        ),
    ],
)  # fmt: skip
def test_a_node_of_galera(changed: dict[str, str], result: str, said: str, fix: str) -> None:
    found = galera.judge(_NODE | changed)
    assert (found.check, found.result) == ("database: cluster", result)
    assert said in found.text
    assert fix in (found.fix or "")
