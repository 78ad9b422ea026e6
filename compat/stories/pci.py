"""Flavors that ask for PCI devices. Each side has one device of the alias 'nic' on each of its two hosts."""

from __future__ import annotations

from compat.play import Play

SPEC = "pci_passthrough:alias"


async def _flavor(play: Play, alias: str) -> None:
    """Set without the checks that later versions have, as old clients do."""
    await play.send("DELETE", "/flavors/pci")
    flavor = {"id": "pci", "name": "pci", "ram": 512, "disk": 1, "vcpus": 1}
    await play.send("POST", "/flavors", {"flavor": flavor})
    await play.send("POST", "/flavors/pci/os-extra_specs", {"extra_specs": {SPEC: alias}}, at="2.85")


async def specs(play: Play) -> None:
    await _flavor(play, "nic:1")
    for alias in (
        "nic:1",
        "nic:1,nic:1",
        "nic:1, nic:2",
        "other:1",
        "nic",
        "nic:",
        "nic:x",
        ":1",
        "nic:0",
        "nic:-1",
        "",
    ):
        for at in ("2.85", "2.86", "2.104"):
            body = {"extra_specs": {SPEC: alias}}
            await play.ask(alias, "flavors:set_extra_specs", "POST", "/flavors/pci/os-extra_specs", body, at=at)
    await play.send("DELETE", "/flavors/pci")


async def refused(play: Play) -> None:
    for alias in ("other:1", "nic:1,other:1", "nic", "nic:x"):
        await _flavor(play, alias)
        for at in ("2.1", "2.104"):
            body = play.server(at, flavorRef="pci")
            await play.ask(alias, "servers:create", "POST", "/servers", body, at=at, token="member")
    await play.send("DELETE", "/flavors/pci")


async def room(play: Play) -> None:
    """Three servers where there are two devices, then one again where one has become free."""
    await _flavor(play, "nic:1")
    servers: list[str] = []
    statuses: list[str] = []
    for number in range(3):
        answer = await play.ask(
            f"create {number}", "servers:create", "POST", "/servers", play.server(flavorRef="pci"), token="member"
        )
        servers.append(answer.json()["server"]["id"])
        play.name(servers[-1], "server")
        last = await play.settle(servers[-1])
        statuses.append(last["status"])
        play.note(f"fault {number}", "servers:create", "2.104", "admin", (last.get("fault") or {}).get("code"))
    play.note("statuses", "servers:create", "2.104", "admin", statuses)
    for at in ("2.1", "2.47", "2.104"):
        for token in ("admin", "member"):
            await play.ask("show", "servers:show", "GET", f"/servers/{servers[0]}", at=at, token=token)
    await play.gone(servers[0], servers[2])
    answer = await play.send("POST", "/servers", play.server(flavorRef="pci"))
    again = answer.json()["server"]["id"]
    play.note("free again", "servers:create", "2.104", "admin", (await play.settle(again))["status"])
    await play.gone(servers[1], again)
    await _flavor(play, "nic:2")
    answer = await play.send("POST", "/servers", play.server(flavorRef="pci"))
    more = answer.json()["server"]["id"]
    play.note("more than any host has", "servers:create", "2.104", "admin", (await play.settle(more))["status"])
    await play.gone(more)
    await play.send("DELETE", "/flavors/pci")
