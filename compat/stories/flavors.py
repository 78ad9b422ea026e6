"""Flavors, their extra specs and who may use them."""

from __future__ import annotations

from typing import Any

from compat.microversions import around, every
from compat.play import Play

BOUNDARIES = (55, 61, 75, 102)
SMALL: dict[str, Any] = {"name": "f1", "ram": 128, "vcpus": 1, "disk": 1}
ID = frozenset({"id"})


def _versions(play: Play) -> list[str]:
    return every() if play.thorough else around(*BOUNDARIES)


async def views(play: Play) -> None:
    for token in ("admin", "member"):
        await play.sweep("list", "flavors:list", "/flavors", _versions(play), token=token)
        await play.sweep("detail", "flavors:detail", "/flavors/detail", _versions(play), token=token)
        await play.sweep("show", "flavors:show", "/flavors/1", _versions(play), token=token)
        await play.sweep("show with specs", "flavors:show", "/flavors/6", _versions(play), token=token)
    await play.ask("missing", "flavors:show", "GET", "/flavors/nope")
    await play.ask("missing", "flavors:delete", "DELETE", "/flavors/nope")
    for at in ("2.101", "2.102"):
        await play.ask("unknown parameter", "flavors:show", "GET", "/flavors/1?foo=1", at=at)
    for path in ("/flavors", "/flavors/detail", "/flavors/1"):
        await play.ask(f"legacy {path}", "flavors:list", "GET", f"/v2{path}", at=None)
        await play.ask(f"as nobody {path}", "flavors:list", "GET", path, token="nobody")


async def lists(play: Play) -> None:
    for query in (
        "minRam=1024",
        "minRam=0",
        "minRam=-1",
        "minDisk=20",
        "minRam=x",
        "minDisk=x",
        "minRam=4096&minDisk=80",
        "is_public=none",
        "is_public=None",
        "is_public=false",
        "is_public=true",
        "is_public=0",
        "is_public=x",
        "limit=2",
        "limit=2&marker=2",
        "marker=6",
        "marker=nope",
        "sort_key=memory_mb&sort_dir=desc",
        "sort_key=foo",
        "sort_key=flavorid",
        "sort_key=name",
        "sort_key=vcpus&sort_dir=desc&sort_key=flavorid&sort_dir=asc",
        "sort_key=disabled",
        "sort_key=id&sort_dir=desc",
        "sort_dir=desc",
        "sort_dir=x",
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1&limit=3",
        "foo=bar",
        "name=m1.tiny",
        "name=m1",
        "name=^m1.s",
        "sort_key=rxtx_factor",
        "sort_key=description",
        "sort_key=swap",
        "minDisk=1&limit=1&is_public=none",
    ):
        for at in ("2.1", "2.74", "2.75", "2.101", "2.102", "2.104"):
            await play.ask(f"?{query}", "flavors:list", "GET", f"/flavors?{query}", at=at)
        await play.ask(f"detail?{query}", "flavors:detail", "GET", f"/flavors/detail?{query}", shape=True)
        await play.ask(f"?{query}", "flavors:list", "GET", f"/flavors?{query}", token="member")


async def create(play: Play) -> None:
    for at in _versions(play):
        answer = await play.ask("create", "flavors:create", "POST", "/flavors", {"flavor": SMALL}, at=at)
        play.name(answer.json()["flavor"]["id"], "flavor")
        await play.ask("same name", "flavors:create", "POST", "/flavors", {"flavor": SMALL}, at=at)
        await play.ask("delete", "flavors:delete", "DELETE", f"/flavors/{answer.json()['flavor']['id']}", at=at)
        full = SMALL | {
            "name": "full",
            "id": "full",
            "OS-FLV-EXT-DATA:ephemeral": 2,
            "swap": 512,
            "os-flavor-access:is_public": False,
        }
        if int(at[2:]) < 102:
            full["rxtx_factor"] = 2.0
        if int(at[2:]) >= 55:
            full["description"] = "described"
        await play.ask("full", "flavors:create", "POST", "/flavors", {"flavor": full}, at=at)
        await play.ask("shown", "flavors:show", "GET", "/flavors/full", at=at)
        await play.ask("shown", "flavors:show", "GET", "/flavors/full", at=at, token="member")
        await play.ask("same id", "flavors:create", "POST", "/flavors", {"flavor": SMALL | {"id": "full"}}, at=at)
        await play.ask("update", "flavors:update", "PUT", "/flavors/full", {"flavor": {"description": "new"}}, at=at)
        await play.ask("delete full", "flavors:delete", "DELETE", "/flavors/full", at=at)
        await play.ask("delete again", "flavors:delete", "DELETE", "/flavors/full", at=at)
    tries: dict[str, dict[str, Any]] = {
        "no name": {"name": None},
        "ram zero": {"ram": 0},
        "ram text": {"ram": "128"},
        "ram word": {"ram": "x"},
        "ram huge": {"ram": 2**31},
        "vcpus zero": {"vcpus": 0},
        "vcpus fraction": {"vcpus": 1.5},
        "disk negative": {"disk": -1},
        "disk text": {"disk": "1"},
        "disk zero": {"disk": 0},
        "swap text": {"swap": "4"},
        "swap negative": {"swap": -1},
        "ephemeral text": {"OS-FLV-EXT-DATA:ephemeral": "3"},
        "id odd": {"id": "a!"},
        "id long": {"id": "a" * 256},
        "id null": {"id": None},
        "id auto": {"id": "auto"},
        "id number": {"id": 77},
        "id spaced": {"id": " a "},
        "id empty": {"id": ""},
        "id with spaces": {"id": "a b"},
        "id dotted": {"id": "a.b_c-d"},
        "rxtx": {"rxtx_factor": 1.5},
        "rxtx text": {"rxtx_factor": "1.5"},
        "rxtx zero": {"rxtx_factor": 0},
        "unknown": {"foo": 1},
        "name empty": {"name": ""},
        "name spaced": {"name": " a "},
        "name long": {"name": "a" * 256},
        "name unicode": {"name": "小"},
        "public text": {"os-flavor-access:is_public": "no"},
        "public word": {"os-flavor-access:is_public": "x"},
        "disabled": {"OS-FLV-DISABLED:disabled": True},
        "description": {"description": "x"},
        "description null": {"description": None},
        "description empty": {"description": ""},
        "description long": {"description": "x" * 65536},
    }
    for name, fields in tries.items():
        for at in ("2.1", "2.54", "2.101", "2.104"):
            body = {"flavor": SMALL | {"name": "tried"} | fields}
            answer = await play.ask(name, "flavors:create", "POST", "/flavors", body, at=at)
            if answer.status_code == 200:
                await play.send("DELETE", f"/flavors/{answer.json()['flavor']['id']}")
    for missing in ("ram", "vcpus", "disk", "name"):
        body = {"flavor": {key: value for key, value in SMALL.items() if key != missing}}
        await play.ask(f"without {missing}", "flavors:create", "POST", "/flavors", body)
    wrong: list[dict[str, Any]] = [{}, {"flavor": None}, {"flavor": SMALL, "x": 1}]
    for body in wrong:
        await play.ask(f"body {sorted(body)}", "flavors:create", "POST", "/flavors", body)
    for token in ("member", "reader", "nobody"):
        await play.ask("as", "flavors:create", "POST", "/flavors", {"flavor": SMALL}, token=token)
        await play.ask("as", "flavors:delete", "DELETE", "/flavors/1", token=token)
        await play.ask("as", "flavors:update", "PUT", "/flavors/1", {"flavor": {"description": "x"}}, token=token)
    updates: dict[str, Any] = {
        "name": {"name": "x"},
        "null": {"description": None},
        "long": {"description": "x" * 65536},
        "empty": {},
        "number": {"description": 1},
    }
    for name, update in updates.items():
        for at in ("2.54", "2.55", "2.104"):
            await play.ask(f"update {name}", "flavors:update", "PUT", "/flavors/1", {"flavor": update}, at=at)
    await play.ask("update missing", "flavors:update", "PUT", "/flavors/nope", {"flavor": {"description": "x"}})


async def access(play: Play) -> None:
    body = {"flavor": SMALL | {"name": "private", "id": "private", "os-flavor-access:is_public": False}}
    await play.send("POST", "/flavors", body)
    path = "/flavors/private/action"
    for at in around(7, 102):
        await play.ask("none", "flavors:access", "GET", "/flavors/private/os-flavor-access", at=at)
        add, remove = {"addTenantAccess": {"tenant": "someone"}}, {"removeTenantAccess": {"tenant": "someone"}}
        await play.ask("add", "flavors:access", "POST", path, add, at=at)
        await play.ask("add again", "flavors:access", "POST", path, add, at=at)
        await play.ask("list", "flavors:access", "GET", "/flavors/private/os-flavor-access", at=at)
        await play.ask("remove", "flavors:access", "POST", path, remove, at=at)
        await play.ask("remove again", "flavors:access", "POST", path, remove, at=at)
        await play.ask("public", "flavors:access", "GET", "/flavors/1/os-flavor-access", at=at)
        await play.ask("add to public", "flavors:access", "POST", "/flavors/1/action", add, at=at)
        await play.send("POST", "/flavors/1/action", remove, at=at)
        await play.ask("remove from public", "flavors:access", "POST", "/flavors/1/action", remove, at=at)
        await play.ask("unknown parameter", "flavors:access", "GET", "/flavors/private/os-flavor-access?x=1", at=at)
    await play.ask("use as member", "flavors:show", "GET", "/flavors/private", token="member")
    await play.ask("missing", "flavors:access", "GET", "/flavors/nope/os-flavor-access")
    await play.ask(
        "add to missing", "flavors:access", "POST", "/flavors/nope/action", {"addTenantAccess": {"tenant": "x"}}
    )
    for name, wrong in {
        "no tenant": {"addTenantAccess": {}},
        "null": {"addTenantAccess": None},
        "more": {"addTenantAccess": {"tenant": "a", "x": 1}},
        "number": {"addTenantAccess": {"tenant": 1}},
        "empty": {"addTenantAccess": {"tenant": ""}},
        "unknown": {"x": None},
    }.items():
        await play.ask(f"wrong: {name}", "flavors:access", "POST", path, wrong)
    for token in ("member", "reader", "nobody"):
        await play.ask("list as", "flavors:access", "GET", "/flavors/private/os-flavor-access", token=token)
        await play.ask("add as", "flavors:access", "POST", path, {"addTenantAccess": {"tenant": "x"}}, token=token)
    await play.send("POST", path, {"addTenantAccess": {"tenant": play.side.project}})
    await play.ask("shared, as member", "flavors:show", "GET", "/flavors/private", token="member")
    await play.ask("shared, listed", "flavors:list", "GET", "/flavors?sort_key=name", token="member")
    await play.ask("shared, other", "flavors:show", "GET", "/flavors/private", token="other")
    await play.send("DELETE", "/flavors/private")


async def extra_specs(play: Play) -> None:
    await play.send("POST", "/flavors", {"flavor": SMALL | {"name": "specs", "id": "specs"}})
    path = "/flavors/specs/os-extra_specs"
    operation = "flavors:extra-specs"
    for at in around(86, 102):
        await play.ask("none", operation, "GET", path, at=at)
        await play.ask(
            "create", operation, "POST", path, {"extra_specs": {"hw:cpu_policy": "shared", "foo": "bar"}}, at=at
        )
        await play.ask("list", operation, "GET", path, at=at)
        await play.ask("list", operation, "GET", path, at=at, token="member")
        await play.ask("show", operation, "GET", f"{path}/foo", at=at)
        await play.ask("show missing", operation, "GET", f"{path}/nope", at=at)
        await play.ask("update", operation, "PUT", f"{path}/foo", {"foo": "baz"}, at=at)
        await play.ask("update mismatch", operation, "PUT", f"{path}/foo", {"goo": "baz"}, at=at)
        await play.ask("update two", operation, "PUT", f"{path}/foo", {"foo": "baz", "goo": "x"}, at=at)
        await play.ask("update none", operation, "PUT", f"{path}/foo", {}, at=at)
        await play.ask("delete", operation, "DELETE", f"{path}/foo", at=at)
        await play.ask("delete again", operation, "DELETE", f"{path}/foo", at=at)
        await play.ask("unknown parameter", operation, "GET", f"{path}?x=1", at=at)
        await play.send("DELETE", f"{path}/hw:cpu_policy")
    specs: dict[str, Any] = {
        "wrong value": {"hw:cpu_policy": "nope"},
        "unknown in a known namespace": {"hw:foo": "x"},
        "unknown namespace": {"foo:bar": "x"},
        "number": {"foo": 1},
        "boolean": {"foo": True},
        "odd key": {"f!": "1"},
        "empty": {},
        "long": {"a": "x" * 256},
        "long key": {"a" * 256: "x"},
        "empty value": {"a": ""},
        "empty key": {"": "x"},
        "quota": {"quota:cpu_shares": "x"},
        "quota good": {"quota:cpu_shares": "10"},
        "trait": {"trait:HW_CPU_X86_VMX": "required"},
        "trait wrong": {"trait:HW_CPU_X86_VMX": "x"},
        "resources": {"resources:VCPU": "2"},
        "resources wrong": {"resources:VCPU": "x"},
        "numa": {"hw:numa_nodes": "0"},
        "pages": {"hw:mem_page_size": "large"},
        "pages wrong": {"hw:mem_page_size": "x"},
        "boot": {"hw:boot_menu": "x"},
        "secure": {"os:secure_boot": "required"},
        "secure wrong": {"os:secure_boot": "x"},
        "capabilities": {"capabilities:cpu_info": "x"},
        "hide": {"hide_hypervisor_id": "true"},
        "video": {"hw_video:ram_max_mb": "x"},
        "rng": {"hw_rng:allowed": "x"},
        "pci": {"pci_passthrough:alias": "x"},
        "accel": {"accel:device_profile": "x"},
        "aggregate": {"aggregate_instance_extra_specs:foo": "bar"},
        "group": {"resources1:VCPU": "1"},
        "trait group": {"trait1:CUSTOM_A": "required"},
        "group policy": {"group_policy": "none"},
        "group policy wrong": {"group_policy": "x"},
    }
    for name, values in specs.items():
        for at in ("2.85", "2.86", "2.104"):
            await play.ask(name, operation, "POST", path, {"extra_specs": values}, at=at)
            for key in values:
                if key:
                    await play.send("DELETE", f"{path}/{key}")
    for body in ({}, {"extra_specs": None}, {"extra_specs": {}, "x": 1}):
        await play.ask(f"body {sorted(body)}", operation, "POST", path, body)
    await play.ask("missing flavor", operation, "GET", "/flavors/nope/os-extra_specs")
    await play.ask(
        "to a missing flavor", operation, "POST", "/flavors/nope/os-extra_specs", {"extra_specs": {"a": "b"}}
    )
    for token in ("member", "reader", "nobody"):
        await play.ask("create as", operation, "POST", path, {"extra_specs": {"a": "b"}}, token=token)
        await play.ask("list as", operation, "GET", path, token=token)
        await play.ask("delete as", operation, "DELETE", f"{path}/a", token=token)
    await play.send("DELETE", "/flavors/specs")
