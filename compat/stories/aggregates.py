"""Aggregates, and the availability zones they make."""

from __future__ import annotations

from typing import Any

from compat.microversions import around, every
from compat.play import Play
from compat.stories.server_show import NOWHERE

PATH = "/os-aggregates"
VIEWS = (41, 81, 102)
NUMBERS = frozenset({"id"})
TOKENS = ("manager", "member", "reader", "nobody")


async def _make(play: Play, name: str, zone: str | None = None) -> int:
    body = {"aggregate": {"name": name} | ({"availability_zone": zone} if zone else {})}
    answer = await play.send("POST", PATH, body)
    made: int = answer.json()["aggregate"]["id"]
    return made


async def _act(play: Play, step: str, aggregate: int | str, key: str, content: Any, **options: Any) -> None:
    path = f"{PATH}/{aggregate}/action"
    await play.ask(step, f"aggregates:{key}", "POST", path, {key: content}, loose=NUMBERS, **options)


async def _clean(play: Play) -> None:
    for found in (await play.send("GET", PATH)).json()["aggregates"]:
        for host in found["hosts"]:
            await play.send("POST", f"{PATH}/{found['id']}/action", {"remove_host": {"host": host}})
        await play.send("DELETE", f"{PATH}/{found['id']}")


async def life(play: Play) -> None:
    for at in every() if play.thorough else around(*VIEWS):
        body = {"aggregate": {"name": f"one {at}", "availability_zone": f"zone {at}"}}
        made = await play.ask("create", "aggregates:create", "POST", PATH, body, at=at, loose=NUMBERS)
        one = f"{PATH}/{made.json()['aggregate']['id']}"
        await play.ask("show", "aggregates:show", "GET", one, at=at, loose=NUMBERS)
        await play.ask("show, unknown parameter", "aggregates:show", "GET", f"{one}?foo=1", at=at, loose=NUMBERS)
        for host in play.side.hosts:
            await _act(play, "add host", one.rpartition("/")[2], "add_host", {"host": host}, at=at)
        await play.ask("list", "aggregates:index", "GET", PATH, at=at, loose=NUMBERS)
        await play.ask("list, unknown parameter", "aggregates:index", "GET", f"{PATH}?foo=1", at=at, loose=NUMBERS)
        metadata = {"ssd": "true", "x:y": "", "gone": "soon"}
        await _act(play, "metadata", one.rpartition("/")[2], "set_metadata", {"metadata": metadata}, at=at)
        await _act(play, "metadata gone", one.rpartition("/")[2], "set_metadata", {"metadata": {"gone": None}}, at=at)
        await play.ask(
            "rename", "aggregates:update", "PUT", one, {"aggregate": {"name": f" two {at} "}}, at=at, loose=NUMBERS
        )
        body = {"aggregate": {"availability_zone": f"other {at}"}}
        await play.ask("change zone", "aggregates:update", "PUT", one, body, at=at, loose=NUMBERS)
        await play.ask("delete with hosts", "aggregates:delete", "DELETE", one, at=at)
        for host in play.side.hosts:
            await _act(play, "remove host", one.rpartition("/")[2], "remove_host", {"host": host}, at=at)
        await play.ask("show again", "aggregates:show", "GET", one, at=at, loose=NUMBERS)
        await play.ask("delete", "aggregates:delete", "DELETE", one, at=at)
        await play.ask("delete again", "aggregates:delete", "DELETE", one, at=at)
        await play.ask("show none", "aggregates:show", "GET", one, at=at)


async def refused(play: Play) -> None:
    aggregate = await _make(play, "one")
    other = await _make(play, "other")
    host = play.side.hosts[0]
    bodies: dict[str, Any] = {
        "no name": {},
        "null name": {"name": None},
        "empty name": {"name": ""},
        "blank name": {"name": " "},
        "padded name": {"name": " x "},
        "long name": {"name": "x" * 256},
        "number": {"name": 1},
        "taken": {"name": "other"},
        "zone null": {"name": "a", "availability_zone": None},
        "zone empty": {"name": "b", "availability_zone": ""},
        "zone colon": {"name": "c", "availability_zone": "a:b"},
        "zone padded": {"name": "d", "availability_zone": " a"},
        "zone long": {"name": "e", "availability_zone": "x" * 256},
        "unknown": {"name": "f", "foo": 1},
        "metadata": {"name": "g", "metadata": {}},
        "tab": {"name": "a\tb"},
        "beyond": {"name": "\u00e4\u4e16"},
    }
    for at in ("2.1", "2.104"):
        for name, content in bodies.items():
            body = {"aggregate": content}
            answer = await play.ask(f"create: {name}", "aggregates:create", "POST", PATH, body, at=at, loose=NUMBERS)
            if answer.status_code == 200:
                await play.send("DELETE", f"{PATH}/{answer.json()['aggregate']['id']}")
            await play.ask(
                f"update: {name}", "aggregates:update", "PUT", f"{PATH}/{aggregate}", body, at=at, loose=NUMBERS
            )
            await play.send("PUT", f"{PATH}/{aggregate}", {"aggregate": {"name": "one"}})
        for name, body in (("no body", None), ("empty", {}), ("more", {"aggregate": {"name": "x"}, "foo": 1})):
            await play.ask(f"create: {name}", "aggregates:create", "POST", PATH, body, at=at)
            await play.ask(f"update: {name}", "aggregates:update", "PUT", f"{PATH}/{aggregate}", body, at=at)
        for key in ("add_host", "remove_host"):
            for name, content in {
                "unknown host": {"host": "nohost"},
                "no host": {},
                "null": {"host": None},
                "empty host": {"host": ""},
                "long": {"host": "x" * 256},
                "sign": {"host": "a b"},
                "more": {"host": host, "foo": 1},
                "number": {"host": 1},
                "no object": None,
            }.items():
                await _act(play, f"{key}: {name}", aggregate, key, content, at=at)
        for name, content in {
            "null": {"metadata": None},
            "none": {},
            "empty": {"metadata": {}},
            "number": {"metadata": {"a": 1}},
            "long": {"metadata": {"a": "x" * 256}},
            "long key": {"metadata": {"x" * 256: "a"}},
            "sign": {"metadata": {"a/b": "a"}},
            "object": {"metadata": {"a": {}}},
            "zone null": {"metadata": {"availability_zone": None}},
            "zone empty": {"metadata": {"availability_zone": ""}},
            "removing none": {"metadata": {"nothing": None}},
            "more": {"metadata": {}, "foo": 1},
        }.items():
            await _act(play, f"metadata: {name}", aggregate, "set_metadata", content, at=at)
        await _act(play, "unknown action", aggregate, "foo", {}, at=at)
        for item in ("99999", "x", NOWHERE, "-1", "1.0", "9" * 30, "0"):
            await play.ask(f"show {item}", "aggregates:show", "GET", f"{PATH}/{item}", at=at)
            await play.ask(f"delete {item}", "aggregates:delete", "DELETE", f"{PATH}/{item}", at=at)
            body = {"aggregate": {"name": "z"}}
            await play.ask(f"update {item}", "aggregates:update", "PUT", f"{PATH}/{item}", body, at=at)
            await _act(play, f"add host {item}", item, "add_host", {"host": host}, at=at)
            await _act(play, f"remove host {item}", item, "remove_host", {"host": host}, at=at)
            await _act(play, f"metadata {item}", item, "set_metadata", {"metadata": {"a": "b"}}, at=at)
    for token in TOKENS:
        for method, path, body in (
            ("GET", PATH, None),
            ("POST", PATH, {"aggregate": {"name": "t"}}),
            ("GET", f"{PATH}/{aggregate}", None),
            ("PUT", f"{PATH}/{aggregate}", {"aggregate": {"name": "t"}}),
            ("DELETE", f"{PATH}/99999", None),
            ("POST", f"{PATH}/{aggregate}/action", {"add_host": {"host": host}}),
            ("POST", f"{PATH}/{aggregate}/action", {"remove_host": {"host": host}}),
            ("POST", f"{PATH}/{aggregate}/action", {"set_metadata": {"metadata": {}}}),
            ("POST", f"{PATH}/{aggregate}/images", {"cache": [{"id": NOWHERE}]}),
        ):
            step = f"{method} {path.replace(str(aggregate), '{id}')} {' '.join(body or ())} as"
            await play.ask(step, "aggregates:policy", method, path, body, token=token)
    assert other
    await _clean(play)


async def zones(play: Play) -> None:
    first, second = play.side.hosts[0], play.side.hosts[1]
    red, blue, plain = await _make(play, "red", "red"), await _make(play, "blue", "blue"), await _make(play, "plain")
    again = await _make(play, "again", "red")

    async def look(step: str) -> None:
        path = "/os-availability-zone"
        await play.ask(f"zones {step}", "availability-zones:list", "GET", path)
        await play.ask(
            f"zones in detail {step}",
            "availability-zones:detail",
            "GET",
            f"{path}/detail",
            unordered={"availabilityZoneInfo"},
        )
        path = "/os-services?binary=nova-compute"
        await play.ask(f"services {step}", "services:list", "GET", path, loose=NUMBERS, unordered={"services"})

    async def act(step: str, aggregate: int, key: str, host: str) -> None:
        await _act(play, step, aggregate, key, {"host": host})

    await look("without hosts")
    await act("first to red", red, "add_host", first)
    await act("first to red again", red, "add_host", first)
    await act("first to blue", blue, "add_host", first)
    await act("first to plain", plain, "add_host", first)
    await act("first to the other red", again, "add_host", first)
    await look("first red")
    for name, metadata in (("blue", "blue"), ("red", "red")):
        content = {"metadata": {"availability_zone": metadata}}
        await _act(play, f"plain made {name}", plain, "set_metadata", content)
        await _act(play, f"red made {name}", red, "set_metadata", content)
    await look("plain red")
    server = await play.boot("server", availability_zone="red")
    await play.ask("server in red", "servers:show", "GET", f"/servers/{server}", at="2.96", loose=frozenset({"id"}))
    for step, zone in (("green", "green"), ("red", "red")):
        body = {"aggregate": {"availability_zone": zone}}
        await play.ask(
            f"red with a server becomes {step}", "aggregates:update", "PUT", f"{PATH}/{red}", body, loose=NUMBERS
        )
    await act("first leaves red, two stay", red, "remove_host", first)
    await act("first leaves again", again, "remove_host", first)
    await act("first leaves plain, with a server", plain, "remove_host", first)
    await act("first leaves plain twice", plain, "remove_host", first)
    await act("first leaves where it is not", blue, "remove_host", first)
    await look("with a server")
    bare = await play.boot("bare", availability_zone="nova")
    await act("second with a server to blue", blue, "add_host", second)
    without_zone = await _make(play, "without")
    await act("second with a server to one without a zone", without_zone, "add_host", second)
    await _act(play, "that becomes a zone", without_zone, "set_metadata", {"metadata": {"availability_zone": "yellow"}})
    for zone in ("green", "blue", "", "red:", f"red:{first}"):
        name = f"boot in {zone.replace(first, '{first}')}"
        made = await play.ask(name, "servers:create", "POST", "/servers", play.server(availability_zone=zone))
        if made.status_code == 202:
            where = made.json()["server"]["id"]
            play.name(where, f"{zone} server")
            state = await play.settle(where)
            play.note(f"{name}: becomes", "servers:create", "2.104", "admin", state["status"])
            await play.gone(where)
    await play.gone(server, bare)
    listed = (await play.send("GET", "/os-services?binary=nova-compute")).json()["services"]
    chosen = next(item for item in listed if item["host"] == first)
    await play.send("PUT", f"/os-services/{chosen['id']}", {"status": "disabled"})
    await look("first disabled")
    await play.send("PUT", f"/os-services/{chosen['id']}", {"status": "enabled"})
    await act("first leaves plain, without a server", plain, "remove_host", first)
    await look("at the end")
    await _clean(play)


async def images(play: Play) -> None:
    aggregate = await _make(play, "images")
    path = f"{PATH}/{aggregate}/images"
    for step, added in (("no hosts", False), ("hosts", True)):
        if added:
            for host in play.side.hosts:
                await play.send("POST", f"{PATH}/{aggregate}/action", {"add_host": {"host": host}})
        for at in around(81):
            for name, content in {
                "one": [{"id": play.side.image}],
                "two": [{"id": play.side.image}, {"id": play.side.other_image}],
                "twice": [{"id": play.side.image}] * 2,
                "unknown": [{"id": NOWHERE}],
                "one unknown": [{"id": play.side.image}, {"id": NOWHERE}],
                "no id": [{}],
                "not a uuid": [{"id": "x"}],
                "more": [{"id": play.side.image, "foo": 1}],
                "empty": [],
                "null": None,
                "text": "x",
            }.items():
                body = {"cache": content}
                await play.ask(f"{step}: {name}", "aggregates:images", "POST", path, body, at=at)
    for item in ("99999", "x"):
        body = {"cache": [{"id": play.side.image}]}
        await play.ask(f"of {item}", "aggregates:images", "POST", f"{PATH}/{item}/images", body)
    await _clean(play)
