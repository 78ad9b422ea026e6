"""Server groups, and servers in them."""

from __future__ import annotations

from typing import Any

from compat.microversions import around, every
from compat.play import Play
from compat.stories.server_show import NOWHERE

PATH = "/os-server-groups"
VIEWS = (13, 15, 64, 75, 102)


def _body(at: str, name: str, policy: str = "affinity", rules: Any = None) -> dict[str, Any]:
    if int(at[2:]) < 64:
        return {"server_group": {"name": name, "policies": [policy]}}
    return {"server_group": {"name": name, "policy": policy} | ({"rules": rules} if rules is not None else {})}


async def _make(play: Play, name: str, policy: str = "soft-affinity", token: str = "admin", **more: Any) -> str:
    answer = await play.send("POST", PATH, _body("2.64", name, policy, **more), token=token)
    made: str = answer.json()["server_group"]["id"]
    play.name(made, name)
    return made


async def _clean(play: Play) -> None:
    for found in (await play.send("GET", f"{PATH}?all_projects=1")).json()["server_groups"]:
        await play.send("DELETE", f"{PATH}/{found['id']}")


async def life(play: Play) -> None:
    await play.send("PUT", f"/os-quota-sets/{play.side.project}", {"quota_set": {"server_groups": -1}})
    for at in every() if play.thorough else around(*VIEWS):
        for policy in ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"):
            body = _body(at, f"g {policy}", policy)
            made = await play.ask(f"create {policy}", "server-groups:create", "POST", PATH, body, at=at)
            if made.status_code == 200:
                one = f"{PATH}/{made.json()['server_group']['id']}"
                await play.ask(f"show {policy}", "server-groups:show", "GET", one, at=at)
        await play.ask("show, unknown parameter", "server-groups:show", "GET", f"{one}?foo=1", at=at)
        await play.ask("list", "server-groups:index", "GET", PATH, at=at)
        for rules in ({}, {"max_server_per_host": 3}, {"max_server_per_host": "2"}, {"max_server_per_host": 1}):
            for policy in ("anti-affinity", "affinity", "soft-anti-affinity"):
                body = {"server_group": {"name": "r", "policy": policy, "rules": rules}}
                await play.ask(f"create {policy} with {rules}", "server-groups:create", "POST", PATH, body, at=at)
        await play.ask("list with rules", "server-groups:index", "GET", PATH, at=at)
        await play.ask("delete", "server-groups:delete", "DELETE", one, at=at)
        await play.ask("delete again", "server-groups:delete", "DELETE", one, at=at)
        await play.ask("show none", "server-groups:show", "GET", one, at=at)
        await _clean(play)
    await play.send("DELETE", f"/os-quota-sets/{play.side.project}")


async def refused(play: Play) -> None:
    await play.send("PUT", f"/os-quota-sets/{play.side.project}", {"quota_set": {"server_groups": -1}})
    bodies: dict[str, Any] = {
        "no name": {"policies": ["affinity"], "policy": "affinity"},
        "null name": {"name": None},
        "empty name": {"name": ""},
        "blank name": {"name": " "},
        "padded name": {"name": " x "},
        "long name": {"name": "x" * 256},
        "number": {"name": 1},
        "tab": {"name": "a\tb"},
        "both": {"name": "x", "policy": "affinity", "policies": ["affinity"]},
        "policy null": {"name": "x", "policy": None},
        "policy wrong": {"name": "x", "policy": "foo"},
        "policy list": {"name": "x", "policy": ["affinity"]},
        "policies empty": {"name": "x", "policies": []},
        "policies two": {"name": "x", "policies": ["affinity", "anti-affinity"]},
        "policies text": {"name": "x", "policies": "affinity"},
        "policies wrong": {"name": "x", "policies": ["foo"]},
        "policies legacy": {"name": "x", "policies": ["legacy"]},
        "metadata": {"name": "x", "metadata": {}},
        "unknown": {"name": "x", "foo": 1},
        "rules": {"name": "x", "rules": {}},
        "rules null": {"name": "x", "rules": None},
        "rules zero": {"name": "x", "rules": {"max_server_per_host": 0}},
        "rules negative": {"name": "x", "rules": {"max_server_per_host": -1}},
        "rules text": {"name": "x", "rules": {"max_server_per_host": "x"}},
        "rules empty text": {"name": "x", "rules": {"max_server_per_host": ""}},
        "rules unknown": {"name": "x", "rules": {"foo": 1}},
    }
    for at in ("2.1", "2.15", "2.63", "2.64", "2.104"):
        given = {"policies": ["anti-affinity"]} if int(at[2:]) < 64 else {"policy": "anti-affinity"}
        for name, content in bodies.items():
            fields = content if {"policy", "policies"} & content.keys() else given | content
            body = {"server_group": fields}
            await play.ask(f"create: {name}", "server-groups:create", "POST", PATH, body, at=at)
        for name, raw in (("no body", None), ("empty", {}), ("more", _body(at, "x") | {"foo": 1})):
            await play.ask(f"create: {name}", "server-groups:create", "POST", PATH, raw, at=at)
        for item in (NOWHERE, "x", "1"):
            await play.ask(f"show {item}", "server-groups:show", "GET", f"{PATH}/{item}", at=at)
            await play.ask(f"delete {item}", "server-groups:delete", "DELETE", f"{PATH}/{item}", at=at)
    await _clean(play)
    mine, others = await _make(play, "mine", token="member"), await _make(play, "others", token="other")
    for token in ("admin", "manager", "member", "reader", "other", "nobody"):
        for at in ("2.1", "2.104"):
            await play.ask("list as", "server-groups:index", "GET", PATH, token=token, at=at)
            await play.ask("list all as", "server-groups:index", "GET", f"{PATH}?all_projects=1", token=token, at=at)
            await play.ask("show as", "server-groups:show", "GET", f"{PATH}/{mine}", token=token, at=at)
            await play.ask("show other's as", "server-groups:show", "GET", f"{PATH}/{others}", token=token, at=at)
    for token in ("nobody", "reader", "other"):
        await play.ask("delete as", "server-groups:delete", "DELETE", f"{PATH}/{mine}", token=token)
        if token != "other":
            await play.ask("create as", "server-groups:create", "POST", PATH, _body("2.104", "as"), token=token)
            await play.ask("delete other's as", "server-groups:delete", "DELETE", f"{PATH}/{others}", token=token)
    await play.ask("delete as", "server-groups:delete", "DELETE", f"{PATH}/{mine}", token="manager")
    await play.ask("delete other's as", "server-groups:delete", "DELETE", f"{PATH}/{others}", token="admin")
    await _clean(play)
    await play.send("DELETE", f"/os-quota-sets/{play.side.project}")


async def lists(play: Play) -> None:
    for number in range(5):
        await _make(play, f"group-{number}")
    for query in (
        "limit=2",
        "limit=0",
        "limit=99",
        "limit=x",
        "limit=-1",
        "limit=1&limit=3",
        "offset=3",
        "offset=9",
        "offset=x",
        "offset=-1",
        "limit=2&offset=1",
        "all_projects=1",
        "all_projects=0",
        "all_projects",
        "all_projects=False&limit=1",
        "foo=1",
        "marker=x",
    ):
        for at in ("2.1", "2.74", "2.75", "2.104"):
            for token in ("admin", "member"):
                await play.ask(f"?{query}", "server-groups:index", "GET", f"{PATH}?{query}", at=at, token=token)
    await _clean(play)


async def members(play: Play) -> None:
    group = await _make(play, "group")
    one = await play.boot("one", token="member")

    async def boot(step: str, hints: Any, token: str = "admin", at: str = "2.104", **fields: Any) -> str | None:
        body = play.server(at, **fields) | {"os:scheduler_hints": hints}
        answer = await play.ask(step, "servers:create", "POST", "/servers", body, at=at, token=token)
        if answer.status_code != 202 or "server" not in answer.json():
            return None
        made: str = answer.json()["server"]["id"]
        play.name(made, step)
        await play.settle(made)
        return made

    servers = [await boot("member", {"group": group}, token="member"), await boot("second", {"group": group})]
    for at in around(71, 75, 96, 100):
        await play.ask("server", "servers:show", "GET", f"/servers/{servers[0]}", at=at, token="member")
        await play.ask("server outside", "servers:show", "GET", f"/servers/{one}", at=at, token="member")
        body = {"server": {"name": "other"}}
        await play.ask("renamed", "servers:update", "PUT", f"/servers/{servers[0]}", body, at=at, token="member")
    await play.ask("servers", "servers:detail", "GET", "/servers/detail", token="member")
    await play.ask("group", "server-groups:show", "GET", f"{PATH}/{group}", unordered={"members"})
    await play.ask("groups", "server-groups:index", "GET", PATH, unordered={"members"})
    for name, hint in {
        "unknown group": NOWHERE,
        "no uuid": "x",
        "list": [group],
        "empty list": [],
        "empty": "",
        "null": None,
        "number": 1,
        "name": "group",
    }.items():
        for at in ("2.1", "2.104"):
            made = await boot(f"boot: {name}", {"group": hint}, at=at)
            if made:
                await play.gone(made)
    await play.gone(str(servers[1]))
    await play.ask("group without the second", "server-groups:show", "GET", f"{PATH}/{group}")
    await play.ask("delete with a member", "server-groups:delete", "DELETE", f"{PATH}/{group}")
    await play.ask("server without its group", "servers:show", "GET", f"/servers/{servers[0]}", token="member")
    await play.gone(str(servers[0]), one)


async def quotas(play: Play) -> None:
    project = f"/os-quota-sets/{play.side.project}"
    await play.send("PUT", project, {"quota_set": {"server_groups": 2, "server_group_members": 2}})
    group = await _make(play, "first", token="member")
    await play.ask("second", "server-groups:create", "POST", PATH, _body("2.64", "second"), token="member")
    await play.ask("third", "server-groups:create", "POST", PATH, _body("2.64", "third"), token="member")
    for token in ("member", "admin"):
        await play.ask("limits", "limits:show", "GET", "/limits", token=token)
        await play.ask("used", "quota-sets:detail", "GET", f"{project}/detail", token=token)
    servers = []
    for count in (3, 2, 1):
        body = play.server(min_count=count, max_count=count) | {"os:scheduler_hints": {"group": group}}
        made = await play.ask(f"boot {count}", "servers:create", "POST", "/servers", body, token="member")
        if made.status_code == 202:
            await play.settle(made.json()["server"]["id"])
    listed = (await play.send("GET", "/servers", token="member")).json()["servers"]
    servers = [item["id"] for item in listed]
    await play.gone(*servers)
    await play.send("DELETE", project)
    await _clean(play)
