"""Tags of servers."""

from __future__ import annotations

from typing import Any

from compat.play import Play


async def tags(play: Play) -> None:
    server = await play.boot("server", tags=["t1"])
    path = f"/servers/{server}/tags"
    operation = "servers:tags"
    for at in ("2.1", "2.25", "2.26", "2.27", "2.101", "2.102", "2.104"):
        await play.ask("list", operation, "GET", path, at=at)
        await play.ask("check", operation, "GET", f"{path}/t1", at=at)
        await play.ask("check none", operation, "GET", f"{path}/none", at=at)
        await play.ask("unknown parameter", operation, "GET", f"{path}?foo=1", at=at)
    for at in ("2.25", "2.26", "2.104"):
        await play.ask("replace", operation, "PUT", path, {"tags": ["b", "a", "b"]}, at=at, unordered={"tags"})
        await play.ask("put", operation, "PUT", f"{path}/new", at=at)
        await play.ask("put again", operation, "PUT", f"{path}/new", at=at)
        await play.ask("put with a body", operation, "PUT", f"{path}/other", {"x": 1}, at=at)
        await play.ask("put long", operation, "PUT", f"{path}/{'x' * 61}", at=at)
        await play.ask("put 60", operation, "PUT", f"{path}/{'x' * 60}", at=at)
        await play.ask("put comma", operation, "PUT", f"{path}/a,b", at=at)
        await play.ask("put space", operation, "PUT", f"{path}/a%20b", at=at)
        await play.ask("put unicode", operation, "PUT", f"{path}/%C3%A4", at=at)
        bodies: dict[str, Any] = {
            "slash": {"tags": ["a/b"]},
            "empty tag": {"tags": [""]},
            "many": {"tags": [str(n) for n in range(51)]},
            "long": {"tags": ["x" * 61]},
            "number": {"tags": [1]},
            "word": {"tags": "a"},
            "wrong root": {"x": []},
            "more": {"tags": [], "x": 1},
            "none": None,
        }
        for name, body in bodies.items():
            await play.ask(f"replace, {name}", operation, "PUT", path, body, at=at)
        await play.ask("listed", operation, "GET", path, at=at, unordered={"tags"})
        await play.ask("delete", operation, "DELETE", f"{path}/new", at=at)
        await play.ask("delete again", operation, "DELETE", f"{path}/new", at=at)
        await play.ask(
            "fifty", operation, "PUT", path, {"tags": [f"t{n:02}" for n in range(50)]}, at=at, unordered={"tags"}
        )
        await play.ask("fifty-first", operation, "PUT", f"{path}/more", at=at)
        await play.ask("delete all", operation, "DELETE", path, at=at)
        await play.ask("empty", operation, "GET", path, at=at)
        await play.ask("replace by nothing", operation, "PUT", path, {"tags": []}, at=at)
    for token in ("member", "reader", "other", "nobody"):
        await play.ask("list as", operation, "GET", path, token=token)
        await play.ask("put as", operation, "PUT", f"{path}/a", token=token)
        await play.ask("delete as", operation, "DELETE", f"{path}/a", token=token)
        await play.ask("delete all as", operation, "DELETE", path, token=token)
    await play.gone(server)
