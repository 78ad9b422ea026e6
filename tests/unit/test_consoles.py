"""URLs of consoles: who gets one, in which states, and what it is worth."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kilonova.bus.messages import Answer, ConsumeConsoleToken, LiveConsoles, Message
from kilonova.console.consoleauth import ConsoleAuth
from kilonova.console.settings import CONSOLEAUTH, ConsoleSettings
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud
from tests.support import server_rows as rows
from tests.support.port_servers import IMAGE, booted

NONE = "00000000-0000-0000-0000-000000000000"


async def boot(cloud: TestCloud, api: Client) -> str:
    return str((await booted(api, "none"))["id"])


async def settle(api: Client, server: str) -> None:
    async with asyncio.timeout(30):
        while True:
            found = (await api("GET", f"/servers/{server}")).json().get("server")
            if found is None or found["OS-EXT-STS:task_state"] is None:
                return
            await asyncio.sleep(0.02)


async def ask(
    api: Client, server: str, protocol: str, kind: str, *, token: str = "member", version: str = "2.104"
) -> Any:
    body = {"remote_console": {"protocol": protocol, "type": kind}}
    return await api("POST", f"/servers/{server}/remote-consoles", body, token=token, version=version)


async def token_of(api: Client, server: str, protocol: str = "vnc") -> str:
    answer = await ask(api, server, protocol, "novnc" if protocol == "vnc" else "serial")
    assert answer.status_code == 200, answer.text
    query = parse_qs(urlsplit(answer.json()["remote_console"]["url"]).query)
    return query["token"][0] if "token" in query else query["path"][0].removeprefix("?token=")


@contextmanager
def consoles(api: Client, **changes: Any) -> Iterator[None]:
    """The deployment has other settings for a while."""
    settings = api.rt.settings
    changed = dataclasses.replace(settings, console=dataclasses.replace(ConsoleSettings(), **changes))
    object.__setattr__(api.rt, "settings", changed)
    try:
        yield
    finally:
        object.__setattr__(api.rt, "settings", settings)


async def test_a_page_that_the_guests_host_names_counts_where_the_api_names_none(cloud: TestCloud, api: Client) -> None:
    server = await boot(cloud, api)
    for host in cloud.hosts.values():
        host.agent._console_pages = {"vnc": "http://controller01:6080/vnc_auto.html"}
    for hosts_name, page in (
        (frozenset({"vnc"}), "http://controller01:6080/vnc_auto.html?"),
        (frozenset({"serial"}), "http://127.0.0.1:6080/vnc_auto.html?"),
    ):
        with consoles(api, hosts_name=hosts_name):
            url = (await ask(api, server, "vnc", "novnc")).json()["remote_console"]["url"]
            assert url.startswith(page)


async def test_a_url_leads_to_the_page_with_a_token_where_clients_expect_it(cloud: TestCloud, api: Client) -> None:
    server = await boot(cloud, api)
    answer = await ask(api, server, "vnc", "novnc")
    assert answer.status_code == 200
    shown = answer.json()["remote_console"]
    assert (shown["protocol"], shown["type"]) == ("vnc", "novnc")
    assert shown["url"].startswith("http://127.0.0.1:6080/vnc_auto.html?path=%3Ftoken%3D")
    shown = (await ask(api, server, "serial", "serial")).json()["remote_console"]
    assert shown["url"].startswith("http://127.0.0.1:6080/serial.html?token=")
    with consoles(api, vnc_url="https://c.example/x.html?a=1&path=ws", serial_url="wss://c.example:6083/"):
        url = (await ask(api, server, "vnc", "novnc")).json()["remote_console"]["url"]
        query = parse_qs(urlsplit(url).query)
        assert query["a"] == ["1"]
        assert query["path"][0].startswith("ws?token=")
        url = (await ask(api, server, "serial", "serial")).json()["remote_console"]["url"]
        assert url.startswith("wss://c.example:6083/?token=")


@pytest.mark.parametrize(
    ("key", "kind", "status"),
    [
        ("os-getVNCConsole", "novnc", 200),
        ("os-getVNCConsole", "xvpvnc", 400),
        ("os-getSerialConsole", "serial", 200),
        ("os-getSPICEConsole", "spice-html5", 400),
        ("os-getRDPConsole", "rdp-html5", 400),
    ],
)
async def test_the_old_actions_end_with_2_5(cloud: TestCloud, api: Client, key: str, kind: str, status: int) -> None:
    server = await boot(cloud, api)
    path, body = f"/servers/{server}/action", {key: {"type": kind}}
    for version in ("2.1", "2.5"):
        answer = await api("POST", path, body, token="member", version=version)
        assert answer.status_code == status, answer.text
        if status == 200:
            assert answer.json()["console"]["type"] == kind
    assert (await api("POST", path, body, token="member", version="2.6")).status_code == 404
    assert (await api("POST", path, {"os-getVNCConsole": {"type": "x"}}, version="2.1")).status_code == 400


async def test_remote_consoles_begin_with_2_6_and_types_come_with_versions(cloud: TestCloud, api: Client) -> None:
    server = await boot(cloud, api)
    assert (await ask(api, server, "vnc", "novnc", version="2.5")).status_code == 404
    assert (await ask(api, server, "vnc", "novnc", version="2.6")).status_code == 200
    for protocol, kind, since, message in (
        ("spice", "spice-html5", "2.6", "Unavailable console type spice-html5."),
        ("mks", "webmks", "2.8", "Unavailable console type webmks."),
        ("spice", "spice-direct", "2.99", "Unavailable console type spice-direct."),
        ("rdp", "rdp-html5", "2.6", "Unavailable console type rdp."),
        ("vnc", "serial", "2.6", "Invalid console type serial"),
        ("vnc", "xvpvnc", "2.6", "Invalid console type xvpvnc"),
    ):
        answer = await ask(api, server, protocol, kind, version=since)
        assert (answer.status_code, answer.json()["badRequest"]["message"]) == (400, message)
    for protocol, kind, before in (("mks", "webmks", "2.7"), ("spice", "spice-direct", "2.98")):
        answer = await ask(api, server, protocol, kind, version=before)
        assert "is not one of" in answer.json()["badRequest"]["message"]


async def test_a_console_that_is_switched_off_is_refused(cloud: TestCloud, api: Client) -> None:
    server = await boot(cloud, api)
    with consoles(api, vnc_enabled=False, serial_enabled=False):
        for protocol, kind in (("vnc", "novnc"), ("serial", "serial")):
            answer = await ask(api, server, protocol, kind)
            assert (answer.status_code, answer.json()["badRequest"]["message"]) == (
                400,
                f"Unavailable console type {kind}.",
            )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"host": None, "vm_state": "building"}, "is not ready"),
        ({"vm_state": "stopped"}, "while it is in vm_state stopped"),
        ({"vm_state": "suspended"}, "while it is in vm_state suspended"),
        ({"task_state": "deleting", "deleting": True}, "while it is in task_state deleting"),
    ],
)
async def test_a_server_without_a_running_guest_has_no_console(api: Client, change: dict[str, Any], says: str) -> None:
    server = await rows.add(api.rt.db, **change)
    for protocol, kind in (("vnc", "novnc"), ("serial", "serial")):
        answer = await ask(api, server, protocol, kind)
        assert answer.status_code == 409
        message = answer.json()["conflictingRequest"]["message"]
        assert says in message
        if "Cannot" in message:
            assert f"'get_{protocol}_console'" in message


async def test_consoles_are_the_owners_and_administrators(cloud: TestCloud, api: Client) -> None:
    server = await boot(cloud, api)
    assert (await ask(api, server, "vnc", "novnc", token="admin")).status_code == 200
    assert (await ask(api, server, "vnc", "novnc", token="reader")).status_code == 403
    assert (await ask(api, server, "vnc", "novnc", token="other")).status_code == 404
    assert (await ask(api, NONE, "vnc", "novnc")).status_code == 404


async def test_an_administrator_sees_what_a_token_is_for(cloud: TestCloud, api: Client) -> None:
    server = await boot(cloud, api)
    token = await token_of(api, server)
    path = f"/os-console-auth-tokens/{token}"
    shown = (await api("GET", path, version="2.31")).json()["console"]
    assert set(shown) == {"instance_uuid", "host", "port", "internal_access_path"}
    assert (shown["instance_uuid"], shown["host"]) == (server, "127.0.0.1")
    assert (await api("GET", path, version="2.30")).status_code == 400
    assert (await api("GET", path, token="member", version="2.31")).status_code == 403
    assert (await api("GET", path + "?x=1", version="2.98")).status_code == 200
    assert (await api("GET", path + "?x=1", version="2.99")).status_code == 400
    assert (await api("GET", f"/os-console-auth-tokens/{NONE}", version="2.31")).status_code == 404


class Auth:
    """consoleauth, asked as a proxy asks it."""

    def __init__(self, api: Client) -> None:
        self.api = api

    async def __call__(self, message: Message) -> Answer:
        return await self.api.rt.bus.ask(CONSOLEAUTH, message, 10)

    async def consume(self, token: str, session: str = "") -> dict[str, object]:
        return (await self(ConsumeConsoleToken(token=token, session=session))).data


@pytest.mark.parametrize("protocol", ["vnc", "serial"])
async def test_a_token_is_consumed_once_and_looking_at_it_does_not_count(
    cloud: TestCloud, api: Client, protocol: str
) -> None:
    role = ConsoleAuth(api.rt)
    await role.start()
    auth = Auth(api)
    server = await boot(cloud, api)
    token = await token_of(api, server, protocol)
    assert (await api("GET", f"/os-console-auth-tokens/{token}", version="2.31")).status_code == 200
    found = await auth.consume(token)
    assert (found["server"], found["kind"], found["host"]) == (server, protocol, "127.0.0.1")
    assert found["ticket"]
    assert await auth.consume(token) == {"refused": "used"}
    assert await auth.consume("nonsense") == {"refused": "unknown"}
    connection = str(found["connection"])
    assert (await auth(LiveConsoles(connections=[connection, "x"]))).data == {"ended": {"x": "replaced"}}
    await role.stop()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/action", {"os-stop": None}),
        ("POST", "/action", {"suspend": None}),
        ("POST", "/action", {"rebuild": {"imageRef": IMAGE}}),
        ("DELETE", "", None),
    ],
)
async def test_tokens_and_sessions_end_with_their_guest(
    cloud: TestCloud, api: Client, method: str, path: str, body: Any
) -> None:
    role = ConsoleAuth(api.rt)
    await role.start()
    auth = Auth(api)
    server = await boot(cloud, api)
    used, unused = await token_of(api, server), await token_of(api, server)
    connection = str((await auth.consume(used, "mine"))["connection"])
    assert (await api(method, f"/servers/{server}{path}", body, token="member")).status_code in (202, 204)
    await settle(api, server)
    assert (await auth(LiveConsoles(connections=[connection]))).data == {"ended": {connection: "revoked"}}
    assert await auth.consume(unused) == {"refused": "revoked"}
    assert await auth.consume(used, "mine") == {"refused": "revoked"}
    assert (await api("GET", f"/os-console-auth-tokens/{unused}", version="2.31")).status_code == 404
    await role.stop()


async def test_a_host_that_is_away_is_said_so(cloud: TestCloud, api: Client) -> None:
    role = ConsoleAuth(api.rt)
    await role.start()
    server = await boot(cloud, api)
    token = await token_of(api, server)
    (host,) = cloud.hosts.values()
    await host.driver.ensure_stopped(server, 0)
    found = await Auth(api).consume(token, "mine")
    assert found["refused"] == "unavailable"
    assert "is off" in str(found["message"])
    await role.stop()
