"""Power actions, locks and the console's output."""

from __future__ import annotations

from typing import Any

from compat.play import Play

OPPOSITES: tuple[tuple[str, Any, str], ...] = (
    ("os-stop", None, "os-start"),
    ("pause", None, "unpause"),
    ("suspend", None, "resume"),
)
FIELDS_OF_STATE = (
    "status",
    "OS-EXT-STS:vm_state",
    "OS-EXT-STS:task_state",
    "OS-EXT-STS:power_state",
    "locked",
    "locked_reason",
)


async def life(play: Play) -> None:
    server = await play.boot("server")
    path = f"/servers/{server}/action"
    every_action: dict[str, Any] = {
        "os-start": None,
        "os-stop": None,
        "pause": None,
        "unpause": None,
        "suspend": None,
        "resume": None,
        "reboot": {"type": "SOFT"},
    }
    for at in ("2.1", "2.104"):
        for there, value, back in OPPOSITES:
            for token in ("reader", "other", "nobody"):
                await play.ask(
                    f"{there} not allowed", f"actions:{there}", "POST", path, {there: value}, at=at, token=token
                )
            await play.ask(there, f"actions:{there}", "POST", path, {there: value}, at=at, token="member")
            await play.settle(server)
            await play.ask(f"after {there}", "servers:show", "GET", f"/servers/{server}", at=at)
            for other, given in every_action.items():
                if other != back:
                    await play.ask(f"{other} after {there}", f"actions:{other}", "POST", path, {other: given}, at=at)
            await play.ask(back, f"actions:{back}", "POST", path, {back: None}, at=at, token="member")
            await play.settle(server)
            await play.ask(f"after {back}", "servers:show", "GET", f"/servers/{server}", at=at)
        for kind in ("SOFT", "HARD", "soft", "Hard"):
            await play.ask(f"reboot {kind}", "actions:reboot", "POST", path, {"reboot": {"type": kind}}, at=at)
            await play.settle(server)
        await play.send("POST", path, {"os-stop": None})
        await play.settle(server)
        await play.ask("hard reboot after stop", "actions:reboot", "POST", path, {"reboot": {"type": "HARD"}}, at=at)
        await play.settle(server)
        await play.ask("after hard reboot", "servers:show", "GET", f"/servers/{server}", at=at)
    await play.gone(server)


async def refused(play: Play) -> None:
    server = await play.boot("server")
    path = f"/servers/{server}/action"
    bodies: dict[str, Any] = {
        "unknown": {"nope": None},
        "two": {"os-start": None, "os-stop": None},
        "empty": {},
        "a list": [],
        "a word": "x",
        "start of an active one": {"os-start": None},
        "unpause of an active one": {"unpause": None},
        "resume of an active one": {"resume": None},
        "reboot wrong": {"reboot": {"type": "FOO"}},
        "reboot null": {"reboot": None},
        "reboot empty": {"reboot": {}},
        "reboot more": {"reboot": {"type": "SOFT", "x": 1}},
        "unpause with a value": {"unpause": "x"},
        "resume with a value": {"resume": "x"},
        "start with a value": {"os-start": "x"},
        "reset network": {"resetNetwork": None},
        "inject network": {"injectNetworkInfo": None},
    }
    for name, body in bodies.items():
        for at in ("2.1", "2.104"):
            await play.ask(name, "actions:refused", "POST", path, body, at=at)
    await play.ask("nothing", "actions:refused", "POST", path, raw=b"")
    await play.ask("broken", "actions:refused", "POST", path, raw=b"{")
    for at in ("2.5", "2.6"):
        await play.ask(
            "unknown to this version", "actions:refused", "POST", path, {"os-getRDPConsole": {"type": "x"}}, at=at
        )
    await play.ask("get", "actions:refused", "GET", path)
    await play.gone(server)


async def lock(play: Play) -> None:
    server = await play.boot("server", token="member")
    path = f"/servers/{server}/action"
    for at in ("2.1", "2.72", "2.73", "2.104"):
        for name, value in {
            "null": None,
            "empty": {},
            "reason": {"locked_reason": "because"},
            "long": {"locked_reason": "x" * 256},
            "reason empty": {"locked_reason": ""},
            "reason null": {"locked_reason": None},
            "unknown": {"foo": 1},
            "word": "x",
        }.items():
            await play.ask(f"lock {name}", "actions:lock", "POST", path, {"lock": value}, at=at)
            await play.ask(f"shown {name}", "servers:show", "GET", f"/servers/{server}", at=at)
            await play.ask(f"unlock {name}", "actions:unlock", "POST", path, {"unlock": None}, at=at)
    for token in ("reader", "other", "nobody"):
        await play.ask("lock as", "actions:lock", "POST", path, {"lock": None}, token=token)
        await play.ask("unlock as", "actions:unlock", "POST", path, {"unlock": None}, token=token)
    for owner in ("member", "admin"):
        await play.ask(
            f"lock by {owner}", "actions:lock", "POST", path, {"lock": {"locked_reason": owner}}, token=owner
        )
        for token in ("member", "admin"):
            step = f"locked by {owner}"
            await play.ask(f"{step}, stop", "actions:os-stop", "POST", path, {"os-stop": None}, token=token)
            await play.settle(server)
            await play.ask(f"{step}, start", "actions:os-start", "POST", path, {"os-start": None}, token=token)
            await play.settle(server)
            for action, value in {
                "pause": None,
                "reboot": {"type": "HARD"},
                "rebuild": {"imageRef": play.side.image},
            }.items():
                if token == "member":
                    await play.ask(f"{step}, {action}", f"actions:{action}", "POST", path, {action: value}, token=token)
            tag, meta = f"/servers/{server}/tags/a", f"/servers/{server}/metadata/a"
            await play.ask(f"{step}, tag", "servers:tags", "PUT", tag, token=token)
            await play.ask(f"{step}, untag", "servers:tags", "DELETE", tag, token=token)
            await play.ask(f"{step}, metadata", "servers:metadata", "PUT", meta, {"meta": {"a": "b"}}, token=token)
            await play.ask(f"{step}, no metadata", "servers:metadata", "DELETE", meta, token=token)
            await play.ask(
                f"{step}, update", "servers:update", "PUT", f"/servers/{server}", {"server": {"name": "x"}}, token=token
            )
            await play.ask(
                f"{step}, console",
                "actions:os-getConsoleOutput",
                "POST",
                path,
                {"os-getConsoleOutput": {}},
                token=token,
                shape=True,
            )
        await play.ask(f"{step}, unlock", "actions:unlock", "POST", path, {"unlock": None}, token="member")
        await play.ask(f"{step}, unlock", "actions:unlock", "POST", path, {"unlock": None}, token="admin")
    await play.ask("lock to delete", "actions:lock", "POST", path, {"lock": None})
    await play.ask("delete locked", "servers:delete", "DELETE", f"/servers/{server}", token="member")
    await play.gone(server)


async def console_output(play: Play) -> None:
    server = await play.boot("server")
    path = f"/servers/{server}/action"
    values: dict[str, Any] = {
        "all": {},
        "ten": {"length": 10},
        "text": {"length": "5"},
        "null": {"length": None},
        "unlimited": {"length": -1},
        "unlimited text": {"length": "-1"},
        "negative": {"length": -2},
        "word": {"length": "x"},
        "zero": {"length": 0},
        "fraction": {"length": 1.5},
        "more": {"foo": 1},
        "no object": None,
        "list": [],
        "empty text": {"length": ""},
    }
    for name, value in values.items():
        for at in ("2.1", "2.104"):
            await play.ask(
                name, "actions:os-getConsoleOutput", "POST", path, {"os-getConsoleOutput": value}, at=at, shape=True
            )
    for token in ("member", "reader", "other", "nobody"):
        await play.ask(
            "as", "actions:os-getConsoleOutput", "POST", path, {"os-getConsoleOutput": {}}, token=token, shape=True
        )
    await play.gone(server)
