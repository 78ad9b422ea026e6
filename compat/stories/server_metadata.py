"""Metadata of servers."""

from __future__ import annotations

from typing import Any

from compat.play import Play

AT = ("2.1", "2.104")


async def metadata(play: Play) -> None:
    server = await play.boot("server", metadata={"a": "b"})
    path = f"/servers/{server}/metadata"
    operation = "servers:metadata"
    for at in ("2.1", "2.101", "2.102", "2.104"):
        await play.ask("list", operation, "GET", path, at=at)
        await play.ask("one", operation, "GET", f"{path}/a", at=at)
        await play.ask("none", operation, "GET", f"{path}/none", at=at)
        await play.ask("unknown parameter", operation, "GET", f"{path}?foo=1", at=at)
    for at in AT:
        await play.ask("replace", operation, "PUT", path, {"metadata": {"a": "1"}}, at=at)
        await play.ask("add", operation, "POST", path, {"metadata": {"b": "2"}}, at=at)
        await play.ask("add none", operation, "POST", path, {"metadata": {}}, at=at)
        await play.ask("put one", operation, "PUT", f"{path}/c", {"meta": {"c": "3"}}, at=at)
        bodies: dict[str, Any] = {
            "mismatch": {"meta": {"d": "3"}},
            "two": {"meta": {"c": "3", "d": "3"}},
            "empty": {"meta": {}},
            "number": {"meta": {"c": 3}},
            "null": {"meta": {"c": None}},
            "long": {"meta": {"c": "x" * 256}},
            "wrong root": {"x": {}},
        }
        for name, body in bodies.items():
            await play.ask(f"put one, {name}", operation, "PUT", f"{path}/c", body, at=at)
        lists: dict[str, Any] = {
            "number": {"metadata": {"b": 2}},
            "many": {"metadata": {f"k{n}": "2" for n in range(129)}},
            "long key": {"metadata": {"k" * 256: "a"}},
            "odd key": {"metadata": {"k!": "a"}},
            "a list": {"metadata": []},
            "wrong root": {"x": {}},
            "null": None,
            "more": {"metadata": {}, "x": 1},
        }
        for name, body in lists.items():
            await play.ask(f"add, {name}", operation, "POST", path, body, at=at)
            await play.ask(f"replace, {name}", operation, "PUT", path, body, at=at)
        await play.ask("after", operation, "GET", path, at=at)
        await play.ask("delete", operation, "DELETE", f"{path}/c", at=at)
        await play.ask("delete again", operation, "DELETE", f"{path}/c", at=at)
        await play.ask("replace by nothing", operation, "PUT", path, {"metadata": {}}, at=at)
    for token in ("member", "reader", "other", "nobody"):
        await play.ask("list as", operation, "GET", path, token=token)
        await play.ask("add as", operation, "POST", path, {"metadata": {"b": "2"}}, token=token)
        await play.ask("delete as", operation, "DELETE", f"{path}/b", token=token)
    await play.gone(server)
