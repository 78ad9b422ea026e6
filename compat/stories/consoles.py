"""Consoles in the browser: `remote-consoles`, the actions it took the place of, and what a token is for."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from compat.microversions import LATEST
from compat.play import Play

NOWHERE = "99999999-9999-9999-9999-999999999999"
AT = ("2.1", "2.5", "2.6", "2.7", "2.8", "2.98", "2.99", LATEST)
TOKENS = ("admin", "manager", "member", "reader", "other", "nobody")
ACTIONS = {"os-getVNCConsole": "novnc", "os-getSerialConsole": "serial", "os-getSPICEConsole": "spice-html5"}
REMOTE = (
    ("vnc", "novnc"),
    ("vnc", "xvpvnc"),
    ("vnc", "serial"),
    ("serial", "serial"),
    ("serial", "novnc"),
    ("spice", "spice-html5"),
    ("spice", "spice-direct"),
    ("rdp", "rdp-html5"),
    ("mks", "webmks"),
    ("vnc", "none"),
    ("none", "novnc"),
)
_CREATE = "remote-consoles:create"


def _wanted(protocol: Any, kind: Any, **more: Any) -> dict[str, Any]:
    return {"remote_console": {"protocol": protocol, "type": kind, **more}}


async def remote(play: Play) -> None:
    server = await play.boot("server", token="member")
    path = f"/servers/{server}/remote-consoles"
    for at in AT:
        for protocol, kind in REMOTE:
            step = f"{protocol} {kind}"
            await play.ask(step, _CREATE, "POST", path, _wanted(protocol, kind), at=at, token="member")
    for token in TOKENS:
        await play.ask("by whom", _CREATE, "POST", path, _wanted("vnc", "novnc"), token=token)
    unknown = f"/servers/{NOWHERE}/remote-consoles"
    await play.ask("unknown server", _CREATE, "POST", unknown, _wanted("vnc", "novnc"))
    for step, body in {
        "empty": {},
        "null": {"remote_console": None},
        "no type": {"remote_console": {"protocol": "vnc"}},
        "no protocol": {"remote_console": {"type": "novnc"}},
        "a number": _wanted(1, "novnc"),
        "more": _wanted("vnc", "novnc", port=1),
        "more beside": {**_wanted("vnc", "novnc"), "x": 1},
    }.items():
        await play.ask(step, _CREATE, "POST", path, body, token="member")
    await play.ask("not to be read", _CREATE, "GET", path)
    await play.gone(server)


async def actions(play: Play) -> None:
    server = await play.boot("server", token="member")
    path = f"/servers/{server}/action"
    for key, kind in ACTIONS.items():
        for at in ("2.1", "2.5", "2.6", LATEST):
            await play.ask(key, f"actions:{key}", "POST", path, {key: {"type": kind}}, at=at, token="member")
        for token in TOKENS:
            await play.ask("by whom", f"actions:{key}", "POST", path, {key: {"type": kind}}, at="2.1", token=token)
        for step, body in {
            "null": {key: None},
            "no type": {key: {}},
            "another type": {key: {"type": "none"}},
            "more": {key: {"type": kind, "x": 1}},
        }.items():
            await play.ask(f"{key} {step}", f"actions:{key}", "POST", path, body, at="2.1", token="member")
    body: dict[str, Any] = {"os-getVNCConsole": {"type": "xvpvnc"}}
    await play.ask("of long ago", "actions:os-getVNCConsole", "POST", path, body, at="2.1", token="member")
    unknown = f"/servers/{NOWHERE}/action"
    body = {"os-getVNCConsole": {"type": "novnc"}}
    await play.ask("unknown server", "actions:os-getVNCConsole", "POST", unknown, body, at="2.1")
    await play.gone(server)


async def states(play: Play) -> None:
    """In which states of a server it has a console."""
    server = await play.boot("server", token="member")
    path, action = f"/servers/{server}/remote-consoles", f"/servers/{server}/action"

    async def ask(step: str) -> None:
        await play.ask(step, _CREATE, "POST", path, _wanted("vnc", "novnc"), token="member")

    for name, undone in (("lock", "unlock"), ("pause", "unpause"), ("suspend", "resume"), ("os-stop", "os-start")):
        await play.send("POST", action, {name: None}, token="admin")
        await play.settle(server)
        await ask(name)
        await play.send("POST", action, {undone: None}, token="admin")
        await play.settle(server)
    await play.send("POST", action, {"os-resetState": {"state": "error"}}, token="admin")
    await ask("error")
    await play.gone(server)
    await ask("deleted")


async def tokens(play: Play) -> None:
    operation = "console-auth-tokens:show"
    server = await play.boot("server", token="member")
    answer = await play.send("POST", f"/servers/{server}/remote-consoles", _wanted("vnc", "novnc"), token="member")
    query = parse_qs(urlsplit(answer.json()["remote_console"]["url"]).query)
    token = query["path"][0].removeprefix("?token=")
    play.name(token, "token")
    path = f"/os-console-auth-tokens/{token}"
    loose = frozenset({"host", "port", "internal_access_path"})
    for at in ("2.1", "2.30", "2.31", "2.98", "2.99", LATEST):
        await play.ask("shown", operation, "GET", path, at=at, loose=loose)
        await play.ask("with a query", operation, "GET", f"{path}?x=1", at=at, loose=loose)
        await play.ask("unknown", operation, "GET", f"/os-console-auth-tokens/{NOWHERE}", at=at)
    for who in TOKENS:
        await play.ask("by whom", operation, "GET", path, token=who, loose=loose)
    await play.ask("no uuid", operation, "GET", "/os-console-auth-tokens/x")
    await play.ask("not to be deleted", operation, "DELETE", path)
    await play.gone(server)
    await play.ask("of a deleted server", operation, "GET", path, loose=loose)
