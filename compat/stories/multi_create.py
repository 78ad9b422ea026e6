"""Several servers by one request: counts, names, reservations, quota and room for some of them only."""

from __future__ import annotations

from typing import Any

from compat.microversions import LATEST
from compat.play import Play


async def _made(play: Play, step: str, reservation: str, at: str = LATEST) -> list[str]:
    """The servers of a reservation, once each has come to an end; what is shown of them is compared."""
    query = f"reservation_id={reservation}"
    answer = await play.send("GET", f"/servers/detail?{query}&sort_key=launch_index&sort_dir=asc")
    found = [server["id"] for server in answer.json()["servers"]]
    shown: list[Any] = []
    for server in found:
        play.name(server, "server")
        last = await play.settle(server)
        fields = ("name", "status", "OS-EXT-SRV-ATTR:launch_index", "OS-EXT-SRV-ATTR:hostname")
        shown.append({field: last.get(field) for field in fields})
        play.note(f"{step}: fault", "servers:create", at, "admin", (last.get("fault") or {}).get("code"))
    play.note(step, "servers:create", at, "admin", shown)
    return found


async def counts(play: Play) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "two": {"min_count": 2, "max_count": 2},
        "up to three": {"max_count": 3},
        "at least two": {"min_count": 2},
        "one of one": {"min_count": 1, "max_count": 1},
        "texts": {"min_count": "1", "max_count": "2"},
    }
    for step, more in bodies.items():
        for reservation in (True, False):
            body = play.server(**more, return_reservation_id=reservation)
            answer = await play.ask(
                f"{step}, {reservation}", "servers:create", "POST", "/servers", body, token="member"
            )
            if reservation:
                given = answer.json()["reservation_id"]
                play.name(given, "reservation")
            else:
                first = (await play.send("GET", f"/servers/{answer.json()['server']['id']}")).json()["server"]
                given = first["OS-EXT-SRV-ATTR:reservation_id"]
            made = await _made(play, f"{step}, {reservation}: made", given)
            if reservation:
                for token in ("admin", "member", "other"):
                    await play.ask(
                        f"{step}: list", "servers:list", "GET", f"/servers?reservation_id={given}&sort_key=launch_index"
                        "&sort_dir=asc", token=token,
                    )  # fmt: skip
            await play.gone(*made)
    for step, more in {
        "hostname of two": {"hostname": "one", "max_count": 2},
        "hostname of one": {"hostname": "one", "max_count": 1},
        "name with a number": {"name": "vm-1", "min_count": 2},
        "name with dots": {"name": "Web Server.example_org", "min_count": 2},
        "long name": {"name": "n" * 253, "min_count": 2},
    }.items():
        body = play.server(**more)
        answer = await play.ask(step, "servers:create", "POST", "/servers", body, token="member")
        if answer.status_code == 202:
            first = (await play.send("GET", f"/servers/{answer.json()['server']['id']}")).json()["server"]
            made = await _made(play, f"{step}: made", first["OS-EXT-SRV-ATTR:reservation_id"])
            await play.gone(*made)


async def room(play: Play) -> None:
    """Two hosts, each with room for one server of this flavor."""
    big = {"id": "big", "name": "big", "ram": 512, "disk": 600, "vcpus": 1}
    await play.send("POST", "/flavors", {"flavor": big})
    for step, more in {
        "two where two fit": {"min_count": 2},
        "one to three where two fit": {"min_count": 1, "max_count": 3},
        "three where two fit": {"min_count": 3},
    }.items():
        body = play.server(flavorRef="big", return_reservation_id=True, **more)
        loose = {"reservation_id"}
        answer = await play.ask(step, "servers:create", "POST", "/servers", body, token="member", loose=loose)
        made = await _made(play, f"{step}: made", answer.json()["reservation_id"])
        await play.gone(*made)
    await play.send("DELETE", "/flavors/big")


async def quota(play: Play) -> None:
    path = f"/os-quota-sets/{play.side.project}"
    await play.send("PUT", path, {"quota_set": {"instances": 3, "force": True}})
    loose = {"reservation_id"}
    for step, more in {
        "four of three": {"min_count": 4},
        "one to four of three": {"min_count": 1, "max_count": 4},
    }.items():
        body = play.server(**more, return_reservation_id=True)
        answer = await play.ask(step, "servers:create", "POST", "/servers", body, token="member", loose=loose)
        made = []
        if answer.status_code == 202:
            made = await _made(play, f"{step}: made", answer.json()["reservation_id"])
            await play.ask(f"{step}, again", "servers:create", "POST", "/servers", play.server(), token="member")
        await play.ask(f"{step}: limits", "limits:show", "GET", "/limits", token="member")
        await play.gone(*made)
    await play.send("PUT", path, {"quota_set": {"instances": 10, "cores": 2, "force": True}})
    body = play.server(min_count=1, max_count=5, return_reservation_id=True)
    answer = await play.ask("two cores", "servers:create", "POST", "/servers", body, token="member", loose=loose)
    await play.gone(*await _made(play, "two cores: made", answer.json()["reservation_id"]))
    await play.send("DELETE", path)
