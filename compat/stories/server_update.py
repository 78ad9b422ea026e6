"""Changing and deleting servers."""

from __future__ import annotations

from typing import Any

from compat.microversions import around
from compat.play import Play
from compat.stories.server_show import BOUNDARIES


async def update(play: Play) -> None:
    server = await play.boot("server", name="upd", metadata={"a": "b"}, tags=["x"])
    path = f"/servers/{server}"
    for at in around(*BOUNDARIES, 94, 104):
        await play.ask("name", "servers:update", "PUT", path, {"server": {"name": "upd"}}, at=at)
    await play.ask("name", "servers:update", "PUT", path, {"server": {"name": "upd"}}, token="member")
    changes: dict[str, Any] = {
        "nothing": {},
        "description": {"description": "d"},
        "description null": {"description": None},
        "hostname": {"hostname": "foo"},
        "hostname fqdn": {"hostname": "foo.example.org"},
        "hostname null": {"hostname": None},
        "hostname wrong": {"hostname": "a_b!"},
        "addresses": {"accessIPv4": "1.2.3.4", "accessIPv6": "fe80::1"},
        "address wrong": {"accessIPv4": "x"},
        "address empty": {"accessIPv4": ""},
        "address null": {"accessIPv4": None},
        "disk config": {"OS-DCF:diskConfig": "AUTO"},
        "disk config wrong": {"OS-DCF:diskConfig": "x"},
        "unknown": {"foo": 1},
        "name empty": {"name": ""},
        "name spaced": {"name": " a "},
        "name null": {"name": None},
        "name long": {"name": "x" * 256},
        "pin": {"pinned_availability_zone": "nova"},
        "pin elsewhere": {"pinned_availability_zone": "zz"},
        "unpin": {"pinned_availability_zone": None},
        "metadata": {"metadata": {}},
        "several": {"name": "upd", "description": "e", "accessIPv4": "5.6.7.8"},
    }
    for name, change in changes.items():
        for at in ("2.1", "2.104"):
            await play.ask(name, "servers:update", "PUT", path, {"server": change}, at=at)
    bodies: list[Any] = [{}, {"server": None}, {"foo": {}}, {"server": {"name": "upd"}, "foo": 1}, {"server": []}]
    for body in bodies:
        await play.ask(f"body {body}", "servers:update", "PUT", path, body)
    await play.ask("no body", "servers:update", "PUT", path)
    await play.ask(
        "legacy drops unknown fields", "servers:update", "PUT", f"/v2{path}", {"server": {"foo": 1}}, at=None
    )
    for token in ("reader", "other", "nobody"):
        await play.ask("not allowed", "servers:update", "PUT", path, {"server": {"name": "no"}}, token=token)
    await play.gone(server)


async def delete(play: Play) -> None:
    for at in ("2.1", "2.104"):
        server = await play.boot("server")
        for token in ("reader", "other", "nobody"):
            await play.ask("not allowed", "servers:delete", "DELETE", f"/servers/{server}", at=at, token=token)
        await play.ask("delete", "servers:delete", "DELETE", f"/servers/{server}", at=at, token="member")
        await play.vanish(server)
        await play.ask("again", "servers:delete", "DELETE", f"/servers/{server}", at=at)
        server = await play.boot("server")
        path = f"/servers/{server}/action"
        await play.ask(
            "force by reader", "actions:forceDelete", "POST", path, {"forceDelete": None}, at=at, token="reader"
        )
        await play.ask("force", "actions:forceDelete", "POST", path, {"forceDelete": None}, at=at)
        await play.vanish(server)
        await play.ask("force again", "actions:forceDelete", "POST", path, {"forceDelete": None}, at=at)
    server = await play.boot("server")
    await play.ask(
        "force with a value", "actions:forceDelete", "POST", f"/servers/{server}/action", {"forceDelete": {"a": 1}}
    )
    await play.vanish(server)
    server = await play.boot("server")
    await play.ask("legacy", "servers:delete", "DELETE", f"/v2/servers/{server}", at=None)
    await play.vanish(server)
