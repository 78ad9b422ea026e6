"""Quotas of projects, of users, of classes."""

from __future__ import annotations

from typing import Any

from compat.microversions import around, every
from compat.play import Play

VIEWS = (36, 50, 57, 75, 102)
TOKENS = ("admin", "manager", "member", "reader", "other", "nobody")
ALL = (
    "instances", "cores", "ram", "metadata_items", "key_pairs", "server_groups", "server_group_members",
    "injected_files", "injected_file_content_bytes", "injected_file_path_bytes", "fixed_ips", "floating_ips",
    "security_groups", "security_group_rules", "networks",
)  # fmt: skip


async def shown(play: Play) -> None:
    path = f"/os-quota-sets/{play.side.project}"
    server = await play.boot("server", token="member")
    for at in every() if play.thorough else around(*VIEWS):
        for rest in ("", "/defaults", "/detail", "?user_id=member", "/detail?user_id=member", "/detail?user_id=x"):
            await play.ask(f"get {rest}", "quota-sets:show", "GET", path + rest, at=at)
        for rest in ("?foo=1", "/defaults?foo=1", "/detail?foo=1", "?user_id=", "?user_id=a&user_id=member"):
            await play.ask(f"get {rest}", "quota-sets:show", "GET", path + rest, at=at)
        for name in ("default", "other", "x" * 300):
            await play.ask(f"class {name}", "quota-class-sets:show", "GET", f"/os-quota-class-sets/{name}", at=at)
        await play.ask(
            "class, unknown parameter", "quota-class-sets:show", "GET", "/os-quota-class-sets/default?foo=1", at=at
        )
    for token in TOKENS:
        for rest in ("", "/defaults", "/detail"):
            await play.ask(f"as {rest}", "quota-sets:show", "GET", path + rest, token=token)
            await play.ask(f"someone as {rest}", "quota-sets:show", "GET", f"/os-quota-sets/someone{rest}", token=token)
        await play.ask("class as", "quota-class-sets:show", "GET", "/os-quota-class-sets/default", token=token)
        if token != "admin":
            await play.ask("update as", "quota-sets:update", "PUT", path, {"quota_set": {}}, token=token)
            await play.ask("delete as", "quota-sets:delete", "DELETE", path, token=token)
            body = {"quota_class_set": {}}
            await play.ask(
                "update class as", "quota-class-sets:update", "PUT", "/os-quota-class-sets/x", body, token=token
            )
    await play.ask("legacy", "quota-sets:show", "GET", f"/v2{path}", at=None)
    await play.ask("legacy detail", "quota-sets:show", "GET", f"/v2{path}/detail", at=None)
    await play.gone(server)


async def updated(play: Play) -> None:
    path = "/os-quota-sets/someone"
    for at in around(*VIEWS):
        for name in ALL:
            for value in (0, 7, -1, "9"):
                body = {"quota_set": {name: value}}
                await play.ask(f"{name}={value!r}", "quota-sets:update", "PUT", path, body, at=at)
        await play.ask("delete", "quota-sets:delete", "DELETE", path, at=at)
        await play.ask("shown", "quota-sets:show", "GET", path, at=at)
        await play.ask("delete, unknown parameter", "quota-sets:delete", "DELETE", f"{path}?foo=1", at=at)
        body = {"quota_set": {"cores": 5}}
        await play.ask("update, unknown parameter", "quota-sets:update", "PUT", f"{path}?foo=1", body, at=at)
        for value in (True, False, "True", "no", "x", 1, None):
            body = {"quota_set": {"cores": 1, "force": value}}
            await play.ask(f"force {value!r}", "quota-sets:update", "PUT", path, body, at=at)
    bodies: dict[str, Any] = {
        "no body": None,
        "empty": {},
        "set empty": {"quota_set": {}},
        "set null": {"quota_set": None},
        "more": {"quota_set": {}, "foo": 1},
        "id": {"quota_set": {"id": "someone"}},
        "tenant": {"quota_set": {"tenant_id": "someone"}},
        "null": {"quota_set": {"cores": None}},
        "text": {"quota_set": {"cores": "x"}},
        "empty text": {"quota_set": {"cores": ""}},
        "float": {"quota_set": {"cores": 1.5}},
        "whole float": {"quota_set": {"cores": 2.0}},
        "bool": {"quota_set": {"cores": True}},
        "minus two": {"quota_set": {"cores": -2}},
        "minus text": {"quota_set": {"cores": "-1"}},
        "most": {"quota_set": {"cores": 0x7FFFFFFF}},
        "too much": {"quota_set": {"cores": 0x80000000}},
        "huge": {"quota_set": {"cores": "9" * 40}},
        "unknown": {"quota_set": {"volumes": 1}},
        "one bad": {"quota_set": {"ram": 1, "cores": -5}},
    }
    for at in ("2.1", "2.104"):
        for name, body in bodies.items():
            await play.ask(f"update: {name}", "quota-sets:update", "PUT", path, body, at=at)
    await play.send("DELETE", path)


async def users(play: Play) -> None:
    """Limits of users: between what they use and what the project has left."""
    path = f"/os-quota-sets/{play.side.project}"
    server = await play.boot("server", token="member", flavorRef="2")

    async def put(step: str, query: str, /, **limits: Any) -> None:
        await play.ask(step, "quota-sets:update", "PUT", path + query, {"quota_set": limits})

    await put("user: cores below use", "?user_id=member", cores=0)
    await put("user: cores", "?user_id=member", cores=5)
    await put("user: cores up", "?user_id=member", cores=20)
    await put("user: too many", "?user_id=member", cores=21)
    await put("user: unlimited", "?user_id=member", cores=-1)
    await put("user: too many by force", "?user_id=member", cores=30, force=True)
    await put("user: back", "?user_id=member", cores=5, force=True)
    await put("other user: what is left", "?user_id=second", cores=15)
    await put("other user: more than left", "?user_id=second", cores=16)
    await put("third user: one", "?user_id=third", cores=1)
    await put("user: instances", "?user_id=member", instances=1)
    await put("user: fixed ips", "?user_id=member", server_groups=1, key_pairs=1, metadata_items=1)
    await put("project: below the users'", "", cores=10)
    await put("project: below use", "", instances=0)
    await put("project: as the users'", "", cores=20)
    await put("project: unlimited", "", cores=-1)
    await put("user: beside unlimited", "?user_id=member", cores=500)
    await put("project: with unlimited", "", cores=3)
    for rest in ("", "?user_id=member", "?user_id=second", "/detail", "/detail?user_id=member", "/detail?user_id=x"):
        await play.ask(f"get {rest}", "quota-sets:show", "GET", path + rest)
    for token in ("member", "admin"):
        made = await play.ask("boot over the user's", "servers:create", "POST", "/servers", play.server(), token=token)
        if made.status_code == 202:
            await play.gone(made.json()["server"]["id"])
        await play.ask("limits", "limits:show", "GET", "/limits", token=token)
    for number in range(3):
        body = {"server": play.server()["server"] | {"metadata": {str(n): "x" for n in range(number)}}}
        for token in ("member", "admin"):
            made = await play.ask(f"boot with {number}", "servers:create", "POST", "/servers", body, token=token)
            if made.status_code == 202:
                await play.gone(made.json()["server"]["id"])
    await play.ask("delete the user's", "quota-sets:delete", "DELETE", f"{path}?user_id=member")
    await play.ask("without the user's", "quota-sets:show", "GET", f"{path}?user_id=member")
    await play.ask("the other's", "quota-sets:show", "GET", f"{path}?user_id=second")
    await play.ask("delete all", "quota-sets:delete", "DELETE", path)
    await play.ask("the other's, after all", "quota-sets:show", "GET", f"{path}?user_id=second")
    await play.gone(server)


async def classes(play: Play) -> None:
    for name in ("default", "gold"):
        path = f"/os-quota-class-sets/{name}"
        for at in around(50, 57):
            for resource in ALL:
                for value in (3, "4", -1, -2):
                    body = {"quota_class_set": {resource: value}}
                    await play.ask(f"{name}: {resource}={value!r}", "quota-class-sets:update", "PUT", path, body, at=at)
            body = {"quota_class_set": {"cores": 11, "ram": 12345}}
            await play.ask(f"{name}: two", "quota-class-sets:update", "PUT", path, body, at=at)
            await play.ask(f"{name}: shown", "quota-class-sets:show", "GET", path, at=at)
            await play.ask(f"{name}: defaults", "quota-sets:defaults", "GET", "/os-quota-sets/x/defaults", at=at)
            await play.ask(f"{name}: project", "quota-sets:show", "GET", "/os-quota-sets/x", at=at)
            await play.ask(f"{name}: limits", "limits:show", "GET", "/limits", at=at)
        bodies: dict[str, Any] = {
            "no body": None,
            "empty": {},
            "set empty": {"quota_class_set": {}},
            "more": {"quota_class_set": {}, "foo": 1},
            "null": {"quota_class_set": {"cores": None}},
            "text": {"quota_class_set": {"cores": "x"}},
            "force": {"quota_class_set": {"force": True}},
            "too much": {"quota_class_set": {"cores": 0x80000000}},
        }
        for label, body in bodies.items():
            await play.ask(f"{name}: {label}", "quota-class-sets:update", "PUT", path, body)
    path = f"/os-quota-class-sets/{'x' * 256}"
    await play.ask("a long name", "quota-class-sets:update", "PUT", path, {"quota_class_set": {"cores": 1}})
    configured = {
        "instances": 10, "cores": 20, "ram": 51200, "metadata_items": 128, "key_pairs": 100, "server_groups": 10,
        "server_group_members": 10, "injected_files": 5, "injected_file_content_bytes": 10240,
        "injected_file_path_bytes": 255, "fixed_ips": -1, "floating_ips": -1, "security_groups": -1,
        "security_group_rules": -1,
    }  # fmt: skip
    await play.send("PUT", "/os-quota-class-sets/default", {"quota_class_set": configured}, at="2.1")
