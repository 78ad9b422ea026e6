"""Version documents, negotiation and paths."""

from __future__ import annotations

from compat.play import Play


async def documents(play: Play) -> None:
    for at in (None, "2.1", "2.104"):
        await play.ask("root", "versions:list", "GET", "/", at=at)
        for path in ("/v2.1/", "/v2.1", "/v2/", "/v2"):
            await play.ask(path, "versions:show", "GET", path, at=at)
    await play.ask("unknown version", "versions:show", "GET", "/v2.1/", at="2.999")
    for path in ("/v3/", "/foo", "/versions", "/v3/servers/detail"):
        await play.ask(f"choices {path}", "versions:choices", "GET", "/" + path, at=None)


async def negotiation(play: Play) -> None:
    new, old = "OpenStack-API-Version", "X-OpenStack-Nova-API-Version"
    tries = {
        "none": {},
        "old": {old: "2.30"},
        "new": {new: "compute 2.30"},
        "old too new": {old: "2.999"},
        "new too new": {new: "compute 2.999"},
        "old too old": {old: "2.0"},
        "new too old": {new: "compute 2.0"},
        "zero": {old: "0.0"},
        "next major": {new: "compute 3.1"},
        "words": {old: "abc"},
        "letters": {new: "compute x.y"},
        "leading zero": {old: "2.01"},
        "three parts": {old: "2.1.1"},
        "major only": {old: "2"},
        "negative": {old: "2.-1"},
        "empty old": {old: ""},
        "empty new": {new: ""},
        "latest old": {old: "latest"},
        "latest new": {new: "compute latest"},
        "LATEST": {new: "compute LATEST"},
        "disagree": {new: "compute 2.30", old: "2.10"},
        "disagree the other way": {new: "compute 2.10", old: "2.30"},
        "other service": {new: "volume 3.9"},
        "other service and old": {new: "volume 3.9", old: "2.30"},
        "two services": {new: "volume 3.9, compute 2.30"},
        "two services, ours first": {new: "compute 2.30, volume 3.9"},
        "no service": {new: "2.30"},
        "capital": {new: "Compute 2.30"},
        "no space": {new: "compute2.30"},
        "two spaces": {new: "compute  2.30"},
        "nova": {new: "nova 2.30"},
    }
    for name, headers in tries.items():
        await play.ask(name, "versions:negotiation", "GET", "/flavors/1", at=None, headers=headers)
        await play.ask(f"legacy {name}", "versions:negotiation", "GET", "/v2/flavors/1", at=None, headers=headers)
        await play.ask(f"missing {name}", "versions:negotiation", "GET", "/flavors/none", at=None, headers=headers)


async def paths(play: Play) -> None:
    project = play.side.project
    for path in (
        "/v2.1/nothing",
        "/v2.1/servers/",
        "/v2.1/versions",
        f"/v2.1/{project}/servers",
        f"/v2/{project}/servers",
        f"/v2.1/{project}/flavors/1",
        f"/v2/{project}/flavors/1",
        f"/v2.1/{project}/flavors?limit=1",
        f"/v2/{project}/flavors?limit=1",
        "/v2/flavors?limit=1",
        f"/v2.1/{project}",
        f"/v2.1/{project}/",
        f"/v2.1/{'a' * 32}/servers",
        "/v2.1/other/servers",
        f"/v2.1/{project}/nothing",
        "/v2.1/servers.json",
        "/v2.1/servers/detail.json",
        "/v2.1/flavors/",
        "/v2.1//flavors",
        "/v2.1/flavors/1/",
        "/v2.1/flavors/1/nothing",
        "/v2.1/servers/detail/",
        "/v2.1/flavors%2F1",
    ):
        for at in ("2.1", "2.18", "2.104"):
            await play.ask(f"GET {path.replace(project, '{project}')}", "paths", "GET", path, at=at, shape=True)
    for method, path in (
        ("PATCH", "/servers"),
        ("DELETE", "/servers"),
        ("PUT", "/servers"),
        ("HEAD", "/servers"),
        ("OPTIONS", "/servers"),
        ("POST", "/servers/detail"),
        ("POST", "/flavors/1"),
        ("PUT", "/flavors"),
        ("HEAD", "/flavors/1"),
        ("PATCH", "/flavors/1"),
        ("DELETE", "/os-hypervisors"),
        ("POST", "/limits"),
    ):
        await play.ask(f"{method} {path}", "paths", method, path)
    for path in ("/v2.1", "/v2.1/", "/"):
        for method in ("POST", "HEAD", "DELETE"):
            await play.ask(f"{method} {path}", "paths", method, path, shape=True)
    await play.ask("xml", "paths", "POST", "/servers", raw=b"<a/>", headers={"Content-Type": "application/xml"})
    await play.ask("accept xml", "paths", "GET", "/flavors/1", headers={"Accept": "application/xml"})
    await play.ask(
        "vendor type", "paths", "GET", "/flavors/1", headers={"Accept": "application/vnd.openstack.compute+json"}
    )
    await play.ask("broken JSON", "paths", "POST", "/servers", raw=b'{"server":')
    await play.ask("not UTF-8", "paths", "POST", "/servers", raw=b'{"server": "\xff"}')
    await play.ask("query not UTF-8", "paths", "GET", "/servers?name=%FF")
    await play.ask("a list", "paths", "POST", "/servers", raw=b"[]")
    await play.ask("a string", "paths", "POST", "/servers", raw=b'"x"')
    await play.ask("null", "paths", "POST", "/servers", raw=b"null")
    await play.ask("nothing", "paths", "POST", "/servers", raw=b"")
    await play.ask("too large", "paths", "POST", "/servers", raw=b'{"server": "' + b"x" * 200_000 + b'"}')
