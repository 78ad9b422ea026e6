"""Networks of new servers: what may be asked for, and what a server with a port shows."""

from __future__ import annotations

from typing import Any

from compat.play import Play

NOWHERE = "99999999-9999-9999-9999-999999999999"
LOOSE = frozenset({"addr", "OS-EXT-IPS-MAC:mac_addr", "id", "adminPass", "links"})


async def _create(play: Play, step: str, networks: Any, at: str = "2.104", **more: Any) -> str | None:
    """Created, and gone again when it was accepted."""
    body = play.server(at, **more)
    body["server"].pop("networks", None)
    if networks is not None:
        body["server"]["networks"] = networks
    answer = await play.ask(step, "servers:create", "POST", "/servers", body, at=at, loose=LOOSE, token="member")
    return answer.json()["server"]["id"] if answer.status_code == 202 else None


async def accepted(play: Play) -> None:
    network = play.side.network
    asked: dict[str, tuple[Any, str]] = {
        "network": ([{"uuid": network}], "2.1"),
        "network at the latest": ([{"uuid": network}], "2.104"),
        "two NICs": ([{"uuid": network}, {"uuid": network}], "2.104"),
        "auto": ("auto", "2.37"),
        "none": ("none", "2.37"),
        "nothing said": (None, "2.36"),
        "empty list": ([], "2.104"),
        "own port": ([{"port": play.side.ports[0]}], "2.1"),
        "tag": ([{"uuid": network, "tag": "blue"}], "2.42"),
        "tag when it first came": ([{"uuid": network, "tag": "blue"}], "2.32"),
    }
    for step, (networks, at) in asked.items():
        server = await _create(play, step, networks, at)
        if server is None:
            continue
        play.name(server, step)
        await play.settle(server)
        for version in ("2.1", "2.104"):
            answer = await play.send("GET", f"/servers/{server}", at=version)
            shown = answer.json()["server"]
            what = {
                "status": shown["status"],
                "addresses": {
                    name: [[entry["version"], entry.get("OS-EXT-IPS:type")] for entry in entries]
                    for name, entries in shown["addresses"].items()
                },
            }
            play.note(f"{step} shown", "servers:show", version, "admin", what)
            await play.ask(f"{step} ips", "server-ips:index", "GET", f"/servers/{server}/ips", at=version, loose=LOOSE)
        await play.gone(server)


async def refused(play: Play) -> None:
    network, port = play.side.network, play.side.ports[0]
    both: list[dict[str, Any]] = [{"port": port}, {"port": port}]
    asked: dict[str, tuple[Any, dict[str, Any]]] = {
        "unknown network": ([{"uuid": NOWHERE}], {}),
        "unknown port": ([{"port": NOWHERE}], {}),
        "port twice": (both, {}),
        "port with an address": ([{"port": port, "fixed_ip": "192.168.1.3"}], {}),
        "port for two servers": ([{"port": port}], {"min_count": 2, "max_count": 2}),
        "address for two servers": ([{"uuid": network, "fixed_ip": "192.168.1.77"}], {"max_count": 2}),
        "address alone": ([{"fixed_ip": "192.168.1.77"}], {}),
        "no address": ([{"uuid": network, "fixed_ip": "192.168.1"}], {}),
        "tag with a comma": ([{"uuid": network, "tag": "a,b"}], {}),
        "tag too long": ([{"uuid": network, "tag": "a" * 61}], {}),
        "unknown group": ([{"uuid": network}], {"security_groups": [{"name": "nope"}]}),
        "network no uuid": ([{"uuid": "net"}], {}),
        "port no uuid": ([{"port": "port"}], {}),
    }
    for step, (networks, more) in asked.items():
        await _create(play, step, networks, **more)
    for at in ("2.31", "2.36", "2.37", "2.41"):
        await _create(play, "tag", [{"uuid": NOWHERE, "tag": "a"}], at)
    await _create(play, "auto too early", "auto", "2.36")
    await _create(play, "nothing said", None, "2.37")
