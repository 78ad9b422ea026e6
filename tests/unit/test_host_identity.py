"""Which roles start with `host_identity = required`, and what roles without accounts read of their configuration."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from kilonova import config
from kilonova.bus.identity import Senders
from kilonova.bus.messages import Command, ConsumeConsoleToken, Heartbeat, Wake
from kilonova.errors import Invalid
from kilonova.service import deployment
from kilonova.service.http import Listening, listen
from kilonova.service.parts import Parts
from kilonova.service.process import Started
from kilonova.service.roles import start_cert, start_compute, start_console
from tests.support.agents import make_command
from tests.support.processes import free_port

SENDERS = Senders(control=frozenset({"openstack"}))


def load(tmp_path: Path, user: str, more: str = "") -> cfg.ConfigOpts:
    path = tmp_path / "nova.conf"
    path.write_text(
        f"[DEFAULT]\nhost = h.one\nhost_identity = required\ntransport_url = rabbit://{user}:pw@127.0.0.1:{free_port()}/\n"
        f"{more}"
    )
    return config.load([path])


@pytest.mark.parametrize(
    ("program", "user"),
    [
        ("nova-compute", "nova-compute.h.one"),
        ("nova-novncproxy", "nova-novncproxy.h.one"),
        ("nova-cert", "openstack"),
        ("nova-conductor", "openstack"),
    ],
)
def test_who_fits_may_start(tmp_path: Path, program: str, user: str) -> None:
    options = deployment.broker(load(tmp_path, user), program)
    assert options.senders == SENDERS


@pytest.mark.parametrize(
    ("program", "user"),
    [
        ("nova-compute", "openstack"),
        ("nova-compute", "nova-compute.h.two"),
        ("nova-conductor", "nova-compute.h.one"),
        ("nova-conductor", "nova-conductor.h.one"),
        ("nova-novncproxy", "nova-compute.h.one"),
    ],
)
def test_a_role_that_would_not_be_believed_or_is_believed_too_much_does_not_start(
    tmp_path: Path, program: str, user: str
) -> None:
    with pytest.raises(Invalid, match="host_identity = required") as caught:
        deployment.broker(load(tmp_path, user), program)
    assert "pw" not in str(caught.value)


def test_a_hosts_user_is_none_of_the_control_planes(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is a host's"):
        deployment.broker(load(tmp_path, "nova-compute.h.one", "control_users = nova-compute.h.one\n"), "nova-compute")


def test_programs_of_hosts_speak_for_themselves_alone() -> None:
    command: Command = make_command()
    token = ConsumeConsoleToken(token="t")
    assert SENDERS.may_send("openstack", command)
    assert not SENDERS.may_send(None, Wake(operation_id=1))
    assert not SENDERS.may_send("nova-compute.h1", command)
    assert SENDERS.may_send("nova-novncproxy.h1", token)
    assert not SENDERS.may_send("nova-compute.h1", token)
    cert = Heartbeat(host="h1", binary="nova-cert", incarnation="x")
    assert SENDERS.may_send("nova-cert.h1", cert)
    assert not SENDERS.may_send("nova-cert.h2", cert)
    conductor = Heartbeat(host="h1", binary="nova-conductor", incarnation="x")
    assert not SENDERS.may_send("nova-conductor.h1", conductor)
    assert SENDERS.may_answer("nova-cert.h1", "cert")
    assert not SENDERS.may_answer("nova-compute.h1", "scheduler")
    assert not SENDERS.may_answer("nova-compute.h1", "agent.h2")
    assert not SENDERS.may_answer(None, "agent.h1")


class Guarded:
    """A configuration in which nobody may look at the accounts of the control plane."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    def __getattr__(self, name: str) -> Any:
        assert name not in ("database", "keystone_authtoken", "neutron"), f"[{name}] was read"
        return getattr(self.conf, name)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@pytest.mark.parametrize("role", ["compute", "console", "cert"])
async def test_agents_and_proxies_read_neither_database_nor_account(
    tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nova.conf"
    path.write_text(
        f"[DEFAULT]\nhost = h1\nstate_path = {tmp_path}\ncompute_driver = sim\n"
        f"transport_url = rabbit://u:pw@127.0.0.1:{free_port()}/\n"
        "[glance]\nhost = 127.0.0.1\n[prometheus]\nenabled = false\n"
        "[database]\nconnection = mysql://nova:pw@127.0.0.1/nova\n"
        "[keystone_authtoken]\nauth_url = http://127.0.0.1:1\nusername = nova\npassword = pw\n"
    )
    monkeypatch.setattr("kilonova.bus.rabbit.CONNECT", 0.1)
    guarded: Any = Guarded(config.load([path]))
    with pytest.raises(AssertionError, match=r"\[database\] was read"):
        deployment.database(guarded)
    start, program = {
        "compute": (start_compute, "nova-compute"),
        "console": (start_console, "nova-novncproxy"),
        "cert": (start_cert, "nova-cert"),
    }[role]
    async with contextlib.AsyncExitStack() as stack:
        listeners = {"console": Listening(socket=listen("127.0.0.1", free_port()), certificate=None)}
        stack.callback(listeners["console"].socket.close)
        await start(Started(parts=Parts(stack, guarded, program), listeners=listeners))
        await asyncio.sleep(0)
