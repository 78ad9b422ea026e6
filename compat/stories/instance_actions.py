"""What was done to a server."""

from __future__ import annotations

from compat.microversions import around
from compat.play import Play

LIST = "instance-actions:list"
SHOW = "instance-actions:show"


async def actions(play: Play) -> None:
    server = await play.boot("server", token="member")
    path = f"/servers/{server}/os-instance-actions"
    at_boundaries = around(20, 21, 51, 58, 62, 66, 84, 102)
    for action in ("os-stop", "os-start", "pause", "unpause"):
        await play.send("POST", f"/servers/{server}/action", {action: None})
        await play.settle(server)
    await play.send("POST", f"/servers/{server}/action", {"reboot": {"type": "HARD"}}, token="member")
    await play.settle(server)
    done = (await play.send("GET", path)).json()["instanceActions"]
    for number, item in enumerate(reversed(done)):
        play.name(item["request_id"], f"request-{number}")
    for token in ("admin", "member", "reader"):
        await play.sweep("list", LIST, path, at_boundaries, token=token)
    oldest = done[-1]["request_id"]
    for token in ("admin", "member", "reader"):
        # Names and number of events are each service's own: the first one's keys are compared.
        for at in at_boundaries:
            answer = await play.send("GET", f"{path}/{oldest}", at=at, token=token)
            shown = answer.json()["instanceAction"]
            await play.ask("show", SHOW, "GET", f"{path}/{oldest}", at=at, token=token, shape=True, loose={"events"})
            play.note("events", SHOW, at, token, [sorted(event) for event in shown.get("events", [])[:1]])
    for query in (
        "limit=1",
        "limit=0",
        "limit=x",
        "limit=-1",
        f"marker={done[1]['request_id']}",
        "marker=x",
        "changes-since=2011-01-01T00:00:00Z",
        "changes-since=2111-01-01T00:00:00Z",
        "changes-since=x",
        "changes-before=2011-01-01T00:00:00Z",
        "changes-before=2111-01-01T00:00:00Z",
        "changes-before=x",
        "foo=bar",
        "changes-since=2012-01-01T00:00:00Z&changes-before=2011-01-01T00:00:00Z",
        "limit=1&limit=2",
        f"limit=1&marker={done[0]['request_id']}",
    ):
        name = query.replace(done[1]["request_id"], "{second}").replace(done[0]["request_id"], "{first}")
        for at in ("2.57", "2.58", "2.65", "2.66", "2.104"):
            await play.ask(f"?{name}", LIST, "GET", f"{path}?{query}", at=at)
    for what in ("req-00000000-0000-0000-0000-000000000000", "foo"):
        await play.ask(f"none {what}", SHOW, "GET", f"{path}/{what}")
    for at in ("2.101", "2.102"):
        await play.ask("unknown parameter", SHOW, "GET", f"{path}/{oldest}?foo=1", at=at, shape=True, loose={"events"})
    for token in ("other", "nobody"):
        await play.ask("as", LIST, "GET", path, token=token)
        await play.ask("show as", SHOW, "GET", f"{path}/{oldest}", token=token)
    await play.gone(server)
    for at in ("2.1", "2.20", "2.21", "2.104"):
        await play.ask("of a deleted server", LIST, "GET", f"{path}?limit=1", at=at, shape=True)
        await play.ask("show of a deleted server", SHOW, "GET", f"{path}/{oldest}", at=at, shape=True, loose={"events"})
