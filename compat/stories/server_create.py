"""Creating servers: what is accepted, what is refused and how."""

from __future__ import annotations

from typing import Any

from compat.microversions import around
from compat.play import Play
from compat.stories.server_show import NOWHERE

SCHEMAS = (19, 32, 33, 37, 42, 52, 57, 63, 67, 74, 90, 94)


async def _create(play: Play, step: str, body: Any, **options: Any) -> None:
    """One create, gone again before the next so that the quota stays free."""
    answer = await play.ask(step, "servers:create", "POST", "/servers", body, **options)
    if answer.status_code != 202:
        return
    listed = await play.send("GET", "/servers?all_tenants=1")
    servers = [item["id"] for item in listed.json()["servers"]]
    for server in servers:
        await play.settle(server)
    await play.gone(*servers)


async def accepted(play: Play) -> None:
    for at in around(*SCHEMAS):
        await _create(play, "plain", play.server(at), at=at)
    for token in ("member", "reader", "nobody", "manager"):
        await _create(play, "plain", play.server(), token=token)
    await _create(play, "legacy", play.server("2.1"), at=None)
    await play.ask("legacy path", "servers:create", "POST", "/v2/servers", play.server("2.1", foo="dropped"), at=None)
    listed = (await play.send("GET", "/servers")).json()["servers"]
    await play.gone(*[item["id"] for item in listed])
    wanted: dict[str, dict[str, Any]] = {
        "two": {"min_count": 2, "max_count": 2},
        "up to two": {"max_count": 2},
        "counts as text": {"min_count": "2"},
        "reservation": {"return_reservation_id": True},
        "reservation of two": {"return_reservation_id": True, "min_count": 2},
        "password": {"adminPass": "secret"},
        "image as a path": {"imageRef": f"http://image/images/{play.side.image}"},
        "flavor as a number": {"flavorRef": 1},
        "flavor as a path": {"flavorRef": "http://compute/flavors/1"},
        "zone": {"availability_zone": "nova"},
        "disk config": {"OS-DCF:diskConfig": "AUTO"},
        "everything": {
            "description": "d",
            "metadata": {"a": "b"},
            "tags": ["x"],
            "hostname": "h",
            "config_drive": True,
            "user_data": "YQ==",
            "accessIPv4": "1.2.3.4",
            "accessIPv6": "::1",
            "adminPass": "pw",
        },
        "junk as user data": {"user_data": "!!!"},
    }
    for name, fields in wanted.items():
        await _create(play, name, play.server(**fields))
    for name, key in {"hints": "os:scheduler_hints", "hints, old name": "OS-SCH-HNT:scheduler_hints"}.items():
        await _create(play, name, play.server() | {key: {"foo": "bar"}})
    await _create(play, "host", play.server(host=play.side.hosts[0]))
    await _create(play, "zone and host", play.server(availability_zone=f"nova:{play.side.hosts[0]}"))


async def refused(play: Play) -> None:
    host = play.side.hosts[0]
    wrong: dict[str, dict[str, Any]] = {
        "unknown field": {"foo": 1},
        "unknown image": {"imageRef": NOWHERE},
        "image no uuid": {"imageRef": "nope"},
        "image empty": {"imageRef": ""},
        "image null": {"imageRef": None},
        "unknown flavor": {"flavorRef": "999"},
        "flavor empty": {"flavorRef": ""},
        "flavor null": {"flavorRef": None},
        "name empty": {"name": ""},
        "name too long": {"name": "x" * 256},
        "name with spaces around": {"name": " x "},
        "name blank": {"name": "   "},
        "name with a control character": {"name": "a\x00b"},
        "name null": {"name": None},
        "name a number": {"name": 3},
        "networks wrong word": {"networks": "foo"},
        "networks null": {"networks": None},
        "networks item without keys": {"networks": [{}]},
        "networks unknown key": {"networks": [{"foo": "x"}]},
        "networks uuid no uuid": {"networks": [{"uuid": "x"}]},
        "unknown key": {"key_name": "nokey"},
        "key name empty": {"key_name": ""},
        "user data too long": {"user_data": "A" * 65536},
        "user data null": {"user_data": None},
        "min over max": {"min_count": 3, "max_count": 2},
        "min zero": {"min_count": 0},
        "min a word": {"min_count": "x"},
        "min empty": {"min_count": ""},
        "min negative": {"min_count": -1},
        "min fraction": {"min_count": 1.5},
        "unknown zone": {"availability_zone": "nozone"},
        "zone with too many parts": {"availability_zone": "a:b:c:d"},
        "zone empty": {"availability_zone": ""},
        "metadata key too long": {"metadata": {"k" * 256: "v"}},
        "metadata value too long": {"metadata": {"k": "v" * 256}},
        "metadata a number": {"metadata": {"k": 1}},
        "metadata key with odd characters": {"metadata": {"k!": "v"}},
        "metadata empty key": {"metadata": {"": "v"}},
        "metadata a list": {"metadata": []},
        "metadata null": {"metadata": None},
        "too much metadata": {"metadata": {f"k{number}": "v" for number in range(129)}},
        "tag with a slash": {"tags": ["a/b"]},
        "tag with a comma": {"tags": ["a,b"]},
        "tag too long": {"tags": ["a" * 61]},
        "tag empty": {"tags": [""]},
        "too many tags": {"tags": [str(number) for number in range(51)]},
        "description too long": {"description": "x" * 256},
        "description a number": {"description": 1},
        "hostname with odd characters": {"hostname": "-a_"},
        "hostname too long": {"hostname": "a" * 256},
        "hostname empty": {"hostname": ""},
        "personality": {"personality": [{"path": "/a", "contents": "YQ=="}]},
        "config drive a word": {"config_drive": "maybe"},
        "config drive null": {"config_drive": None},
        "disk config wrong": {"OS-DCF:diskConfig": "FOO"},
        "unknown host": {"host": "nohost"},
        "unknown node": {"hypervisor_hostname": "nonode"},
        "host and zone with host": {"host": host, "availability_zone": f"nova:{host}"},
        "address wrong": {"accessIPv4": "x"},
        "address of the other family": {"accessIPv6": "1.2.3.4"},
        "block device without a source": {"block_device_mapping_v2": [{"boot_index": 0}]},
        "block device of an unknown source": {"block_device_mapping_v2": [{"source_type": "foo"}]},
        "both block device forms": {
            "block_device_mapping": [{"device_name": "vda", "volume_id": NOWHERE}],
            "block_device_mapping_v2": [{"source_type": "blank", "destination_type": "local"}],
        },
        "certificates a word": {"trusted_image_certificates": "a"},
        "security groups a word": {"security_groups": "a"},
        "security group without a name": {"security_groups": [{}]},
        "reservation a word": {"return_reservation_id": "perhaps"},
        "admin password null": {"adminPass": None},
    }
    for name, fields in wrong.items():
        await _create(play, name, play.server(**fields))
    for name in ("imageRef", "flavorRef", "name", "networks"):
        body = play.server()
        del body["server"][name]
        await _create(play, f"without {name}", body)
    too_new: dict[str, dict[str, Any]] = {
        "2.18": {"description": "x"},
        "2.51": {"tags": ["a"]},
        "2.62": {"trusted_image_certificates": ["a"]},
        "2.73": {"host": host},
        "2.89": {"hostname": "a"},
        "2.93": {"hostname": "a.b.c"},
        "2.36": {"networks": "none"},
    }
    for at, fields in too_new.items():
        await _create(play, f"{next(iter(fields))} too early", play.server(at, **fields), at=at)
    await _create(play, "personality", play.server(personality=[]), at="2.57")
    await _create(play, "host", play.server(host=host), token="member")
    await _create(play, "zone and host", play.server(availability_zone=f"nova:{host}"), token="member")
    hints: dict[str, Any] = {
        "group no uuid": {"group": "nogroup"},
        "unknown group": {"group": NOWHERE},
        "same host a number": {"same_host": 1},
        "cidr wrong": {"build_near_host_ip": "x"},
        "query a number": {"query": 1},
    }
    for name, hint in hints.items():
        await _create(play, f"hint {name}", play.server() | {"os:scheduler_hints": hint})


async def bodies(play: Play) -> None:
    """Bodies of the wrong form."""
    for name, body in {
        "wrong root": {"foo": {}},
        "empty": {},
        "server null": {"server": None},
        "server a list": {"server": []},
        "server empty": {"server": {}},
        "more than server": {**play.server(), "foo": 1},
    }.items():
        for at in ("2.1", "2.104"):
            await _create(play, name, body, at=at)
    await _create(play, "other project in path", play.server(), token="other")


async def quota(play: Play) -> None:
    await _create(play, "eleven at once", play.server(min_count=11))
    await _create(play, "too many cores", play.server(flavorRef="5", min_count=3))
    await _create(play, "too much of all", play.server(flavorRef="5", min_count=20))
    await _create(play, "as many as fit", play.server(min_count=2, max_count=20, return_reservation_id=True))
