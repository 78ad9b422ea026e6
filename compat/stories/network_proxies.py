"""The old interfaces to Networking, until 2.35."""

from __future__ import annotations

from typing import Any

from compat.play import Play

NOWHERE = "99999999-9999-9999-9999-999999999999"
AT = ("2.1", "2.35", "2.36")


async def networks(play: Play) -> None:
    network = play.side.network
    for at in AT:
        for resource in ("os-networks", "os-tenant-networks"):
            name = resource.removeprefix("os-")
            for token in ("admin", "member", "reader", "nobody"):
                await play.ask(f"{name}", f"{name}:index", "GET", f"/{resource}", at=at, token=token)
                await play.ask(f"{name} one", f"{name}:show", "GET", f"/{resource}/{network}", at=at, token=token)
            await play.ask(f"{name} unknown", f"{name}:show", "GET", f"/{resource}/{NOWHERE}", at=at)
            for method, path in (("POST", f"/{resource}"), ("DELETE", f"/{resource}/{network}")):
                body = {"network": {}} if method == "POST" else None
                await play.ask(f"{name} {method}", f"{name}:gone", method, path, body, at=at)
        for token in ("admin", "member", "nobody"):
            await play.ask("pools", "floating-ip-pools:index", "GET", "/os-floating-ip-pools", at=at, token=token)
        for gone in ("os-security-group-default-rules", "os-fixed-ips/1", "os-floating-ip-dns", "os-floating-ips-bulk"):
            await play.ask(gone, "gone", "GET", f"/{gone}", at=at)


async def floating_ips(play: Play) -> None:
    loose = frozenset({"ip"})
    for at in AT:
        for token in ("reader", "nobody"):
            await play.ask(
                "create not allowed", "floating-ips:create", "POST", "/os-floating-ips", {}, at=at, token=token
            )
        await play.ask("default pool", "floating-ips:create", "POST", "/os-floating-ips", {}, at=at)
        await play.ask("pool null", "floating-ips:create", "POST", "/os-floating-ips", {"pool": None}, at=at)
        await play.ask("unknown pool", "floating-ips:create", "POST", "/os-floating-ips", {"pool": "nope"}, at=at)
        await play.ask("pool a number", "floating-ips:create", "POST", "/os-floating-ips", {"pool": 1}, at=at)
        await play.ask("no body", "floating-ips:create", "POST", "/os-floating-ips", at=at)
        made = await play.send("POST", "/os-floating-ips", {"pool": "public"}, at=at)
        if made.status_code != 200:
            play.note("create", "floating-ips:create", at, "admin", made.status_code)
            continue
        id = made.json()["floating_ip"]["id"]
        play.name(id, f"floating-{at}")
        play.note("create", "floating-ips:create", at, "admin", sorted(made.json()["floating_ip"]))
        for token in ("admin", "member", "reader", "nobody"):
            await play.ask("one", "floating-ips:show", "GET", f"/os-floating-ips/{id}", at=at, token=token, loose=loose)
        await play.ask("list", "floating-ips:index", "GET", "/os-floating-ips", at=at, loose=loose, token="member")
        await play.ask("unknown", "floating-ips:show", "GET", f"/os-floating-ips/{NOWHERE}", at=at)
        await play.ask("delete unknown", "floating-ips:delete", "DELETE", f"/os-floating-ips/{NOWHERE}", at=at)
        await play.ask("delete", "floating-ips:delete", "DELETE", f"/os-floating-ips/{id}", at=at, token="member")
        await play.ask("deleted", "floating-ips:show", "GET", f"/os-floating-ips/{id}", at=at)


async def security_groups(play: Play) -> None:
    path = "/os-security-groups"
    bodies: dict[str, Any] = {
        "empty": {},
        "null": {"security_group": None},
        "no name": {"security_group": {"description": ""}},
        "no description": {"security_group": {"name": "x"}},
        "name too long": {"security_group": {"name": "x" * 256, "description": ""}},
        "name a number": {"security_group": {"name": 1, "description": ""}},
    }
    for at in AT:
        for step, wrong in bodies.items():
            await play.ask(f"create {step}", "security-groups:create", "POST", path, wrong, at=at)
        for token in ("reader", "nobody"):
            body = {"security_group": {"name": "web", "description": "Web"}}
            await play.ask("create not allowed", "security-groups:create", "POST", path, body, at=at, token=token)
        made = await play.send(
            "POST", path, {"security_group": {"name": "web", "description": "Web"}}, at=at, token="member"
        )
        if made.status_code != 200:
            play.note("create", "security-groups:create", at, "member", made.status_code)
            await play.ask("list", "security-groups:index", "GET", path, at=at)
            continue
        id = made.json()["security_group"]["id"]
        play.name(id, f"group-{at}")
        await play.ask("one", "security-groups:show", "GET", f"{path}/{id}", at=at, token="reader")
        await _rules(play, id, at)
        await play.ask("list", "security-groups:index", "GET", path, at=at, token="member", loose=frozenset({"id"}))
        for query in ("limit=1", "limit=x", "offset=1", "limit=-1"):
            await play.ask(
                f"list {query}", "security-groups:index", "GET", f"{path}?{query}", at=at, loose=frozenset({"id"})
            )
        changed = {"security_group": {"name": "www", "description": "W"}}
        await play.ask(
            "update",
            "security-groups:update",
            "PUT",
            f"{path}/{id}",
            changed,
            at=at,
            token="member",
            loose=frozenset({"id", "group"}),
        )
        for name, other in {"unknown": NOWHERE, "no uuid": "x"}.items():
            await play.ask(f"{name}", "security-groups:show", "GET", f"{path}/{other}", at=at)
            await play.ask(f"update {name}", "security-groups:update", "PUT", f"{path}/{other}", changed, at=at)
            await play.ask(f"delete {name}", "security-groups:delete", "DELETE", f"{path}/{other}", at=at)
        await play.ask("delete in use", "security-groups:delete", "DELETE", f"{path}/{play.side.group}", at=at)
        await play.ask("delete", "security-groups:delete", "DELETE", f"{path}/{id}", at=at, token="member")
        await play.ask("deleted", "security-groups:show", "GET", f"{path}/{id}", at=at)


async def _rules(play: Play, group: str, at: str) -> None:
    path = "/os-security-group-rules"
    tcp: dict[str, Any] = {"parent_group_id": group, "ip_protocol": "tcp", "from_port": 80, "to_port": 81}
    asked: dict[str, dict[str, Any]] = {
        "tcp": tcp,
        "again": tcp,
        "with a cidr": {**tcp, "cidr": "10.0.0.0/8"},
        "v6": {**tcp, "cidr": "2001:db8::/32"},
        "ports as text": {**tcp, "from_port": "90", "to_port": "91"},
        "icmp": {**tcp, "ip_protocol": "icmp", "from_port": -1, "to_port": -1},
        "of a group": {"parent_group_id": group, "group_id": group, "ip_protocol": "udp"},
        "everything of a group": {"parent_group_id": group, "group_id": group},
        "icmp of a group": {"parent_group_id": group, "group_id": group, "ip_protocol": "ICMP"},
        "unknown group": {**tcp, "parent_group_id": NOWHERE},
        "unknown source": {**tcp, "group_id": NOWHERE},
        "group no uuid": {**tcp, "parent_group_id": "x"},
        "without ports": {"parent_group_id": group, "ip_protocol": "tcp"},
        "nothing": {"parent_group_id": group},
        "without group": {"ip_protocol": "tcp", "from_port": 80, "to_port": 81},
        "backwards": {**tcp, "from_port": 82},
        "port 0": {**tcp, "from_port": 0},
        "port too high": {**tcp, "to_port": 65536},
        "port a word": {**tcp, "to_port": "x"},
        "icmp type too high": {**tcp, "ip_protocol": "icmp", "from_port": 256, "to_port": 1},
        "unknown protocol": {**tcp, "ip_protocol": "gre"},
        "cidr no cidr": {**tcp, "cidr": "10.0.0.0/33"},
        "cidr without length": {**tcp, "cidr": "10.0.0.1"},
        "cidr of length 0": {**tcp, "cidr": "10.0.0.0/0"},
    }
    for step, body in asked.items():
        await play.ask(
            f"rule {step}", "security-group-rules:create", "POST", path, {"security_group_rule": body}, at=at,
            token="member", loose=frozenset({"id"}),
        )  # fmt: skip
    shown = (await play.send("GET", f"/os-security-groups/{group}", at=at)).json()["security_group"]
    play.note("rules", "security-groups:show", at, "admin", [
        {key: value for key, value in rule.items() if key not in ("id", "parent_group_id")} for rule in shown["rules"]
    ])  # fmt: skip
    for token in ("reader", "nobody", "member"):
        await play.ask(
            "rule delete",
            "security-group-rules:delete",
            "DELETE",
            f"{path}/{shown['rules'][0]['id']}",
            at=at,
            token=token,
        )
    for name, other in {"unknown": NOWHERE, "no uuid": "x"}.items():
        await play.ask(f"rule delete {name}", "security-group-rules:delete", "DELETE", f"{path}/{other}", at=at)
