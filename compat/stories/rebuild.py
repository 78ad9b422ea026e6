"""Rebuilding servers."""

from __future__ import annotations

from typing import Any

from compat.microversions import around
from compat.play import Play
from compat.stories.server_show import KEY, NOWHERE


async def rebuild(play: Play) -> None:
    await play.send("POST", "/os-keypairs", {"keypair": {"name": "rebuilt", "public_key": KEY}})
    server = await play.boot("server", name="reb", metadata={"a": "b"}, tags=["x"])
    path = f"/servers/{server}/action"
    for at in around(9, 19, 26, 47, 54, 57, 63, 71, 73, 75, 90, 94, 96, 98, 100):
        await play.ask("plain", "actions:rebuild", "POST", path, {"rebuild": {"imageRef": play.side.image}}, at=at)
        await play.settle(server)
    await play.ask("plain", "actions:rebuild", "POST", path, {"rebuild": {"imageRef": play.side.image}}, token="member")
    await play.settle(server)
    wanted: dict[str, dict[str, Any]] = {
        "everything": {
            "name": "reb2",
            "metadata": {"c": "d"},
            "description": "d",
            "key_name": "rebuilt",
            "user_data": "YQ==",
            "hostname": "h1",
            "adminPass": "pw",
            "accessIPv4": "1.2.3.4",
            "accessIPv6": "::1",
            "OS-DCF:diskConfig": "AUTO",
        },
        "key taken away": {"key_name": None},
        "user data taken away": {"user_data": None},
        "description taken away": {"description": None},
        "metadata emptied": {"metadata": {}},
        "preserve ephemeral": {"preserve_ephemeral": True},
        "other image": {"imageRef": play.side.other_image},
        "image as a path": {"imageRef": f"http://image/{play.side.image}"},
    }
    for name, fields in wanted.items():
        body = {"rebuild": {"imageRef": play.side.image, **fields}}
        await play.ask(name, "actions:rebuild", "POST", path, body)
        await play.settle(server)
        await play.ask(f"after {name}", "servers:show", "GET", f"/servers/{server}")
    await play.send("POST", path, {"os-stop": None})
    await play.settle(server)
    await play.ask("stopped", "actions:rebuild", "POST", path, {"rebuild": {"imageRef": play.side.image}})
    await play.settle(server)
    await play.ask("after stopped", "servers:show", "GET", f"/servers/{server}")
    await play.gone(server)
    await play.send("DELETE", "/os-keypairs/rebuilt")


async def refused(play: Play) -> None:
    server = await play.boot("server")
    path = f"/servers/{server}/action"
    image = play.side.image
    wrong: dict[str, Any] = {
        "empty": {},
        "null": None,
        "unknown image": {"imageRef": NOWHERE},
        "image no uuid": {"imageRef": "x"},
        "image empty": {"imageRef": ""},
        "unknown field": {"imageRef": image, "foo": 1},
        "name empty": {"imageRef": image, "name": ""},
        "metadata number": {"imageRef": image, "metadata": {"a": 1}},
        "much metadata": {"imageRef": image, "metadata": {f"k{n}": "a" for n in range(129)}},
        "unknown key pair": {"imageRef": image, "key_name": "none"},
        "personality": {"imageRef": image, "personality": []},
        "disk config": {"imageRef": image, "OS-DCF:diskConfig": "x"},
        "hostname": {"imageRef": image, "hostname": "a_!"},
        "user data long": {"imageRef": image, "user_data": "A" * 65536},
    }
    for name, value in wrong.items():
        await play.ask(name, "actions:rebuild", "POST", path, {"rebuild": value})
    early: dict[str, dict[str, Any]] = {
        "2.18": {"description": "d"},
        "2.53": {"key_name": "a"},
        "2.56": {"user_data": "YQ=="},
        "2.62": {"trusted_image_certificates": ["a"]},
        "2.89": {"hostname": "a"},
        "2.93": {"hostname": "a.b"},
    }
    for at, fields in early.items():
        body = {"rebuild": {"imageRef": image, **fields}}
        await play.ask(f"{next(iter(fields))} too early", "actions:rebuild", "POST", path, body, at=at)
    for token in ("reader", "other", "nobody"):
        await play.ask("as", "actions:rebuild", "POST", path, {"rebuild": {"imageRef": image}}, token=token)
    for there, back in (("pause", "unpause"), ("suspend", "resume")):
        await play.send("POST", path, {there: None})
        await play.settle(server)
        await play.ask(f"after {there}", "actions:rebuild", "POST", path, {"rebuild": {"imageRef": image}})
        await play.send("POST", path, {back: None})
        await play.settle(server)
    await play.gone(server)
