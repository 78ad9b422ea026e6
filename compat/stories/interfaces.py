"""`os-interface`: shown, attached, detached; and security groups of servers."""

from __future__ import annotations

import asyncio
from typing import Any

from compat.play import Play

NOWHERE = "99999999-9999-9999-9999-999999999999"
LOOSE = frozenset({"ip_address", "subnet_id", "mac_addr", "port_state"})
AT = ("2.1", "2.48", "2.49", "2.69", "2.70", "2.104")
_OPERATION = "interfaces"


async def _with_port(play: Play, mark: str) -> str:
    server = await play.boot(mark, networks=[{"uuid": play.side.network}])
    shown = (await play.send("GET", f"/servers/{server}/os-interface")).json()["interfaceAttachments"]
    for interface in shown:
        play.name(interface["port_id"], f"{mark}'s port")
    return server


async def _port(play: Play, server: str) -> str:
    shown = (await play.send("GET", f"/servers/{server}/os-interface")).json()["interfaceAttachments"]
    port: str = shown[0]["port_id"]
    return port


async def shown(play: Play) -> None:
    server = await _with_port(play, "server")
    bare = await play.boot("bare")
    path = f"/servers/{server}/os-interface"
    port = await _port(play, server)
    for at in AT:
        for token in ("admin", "member", "reader", "other", "nobody"):
            await play.ask("list", f"{_OPERATION}:index", "GET", path, at=at, token=token, loose=LOOSE)
            await play.ask("one", f"{_OPERATION}:show", "GET", f"{path}/{port}", at=at, token=token, loose=LOOSE)
    await play.ask("list of none", f"{_OPERATION}:index", "GET", f"/servers/{bare}/os-interface")
    await play.ask("of another server", f"{_OPERATION}:show", "GET", f"/servers/{bare}/os-interface/{port}")
    await play.ask("unknown port", f"{_OPERATION}:show", "GET", f"{path}/{NOWHERE}")
    await play.ask("unknown server", f"{_OPERATION}:index", "GET", f"/servers/{NOWHERE}/os-interface")
    for at in ("2.101", "2.102"):
        await play.ask("with a query", f"{_OPERATION}:index", "GET", f"{path}?x=1", at=at, loose=LOOSE)
    await play.gone(server, bare)


async def changed(play: Play) -> None:
    server = await play.boot("server")
    path = f"/servers/{server}/os-interface"
    network, own = play.side.network, play.side.ports[1]

    async def attach(step: str, asked: Any, at: str = "2.104", token: str = "member") -> None:
        answer = await play.send("POST", path, asked, at=at, token="nobody")
        play.note(f"{step} by nobody", f"{_OPERATION}:create", at, "nobody", answer.status_code)
        body = {"interfaceAttachment": asked}
        answer = await play.send("POST", path, body, at=at, token=token)
        if answer.status_code != 200:
            # Refused, so it may be asked once more.
            await play.ask(step, f"{_OPERATION}:create", "POST", path, body, at=at, token=token, loose=LOOSE)
            return
        view = answer.json()["interfaceAttachment"]
        play.name(view["port_id"], step)
        play.note(step, f"{_OPERATION}:create", at, token, [sorted(view), view["net_id"] == network, view.get("tag")])
        await play.ask(f"{step} shown", f"{_OPERATION}:show", "GET", f"{path}/{view['port_id']}", at=at, loose=LOOSE)
        gone = await play.ask(
            f"{step} detached", f"{_OPERATION}:delete", "DELETE", f"{path}/{view['port_id']}", at=at, token=token
        )
        if gone.status_code == 202:
            await _until_gone(play, path, view["port_id"])

    for at in ("2.1", "2.49", "2.70", "2.104"):
        await attach("network", {"net_id": network}, at)
        await attach("own port", {"port_id": own}, at)
    await attach("tagged", {"net_id": network, "tag": "blue"}, "2.49")
    await attach("tagged and shown", {"net_id": network, "tag": "blue"})
    await attach("tag too early", {"net_id": network, "tag": "blue"}, "2.48")
    await attach("both", {"net_id": network, "port_id": own})
    await attach("address without network", {"fixed_ips": [{"ip_address": "192.168.1.50"}]})
    await attach("two addresses", {"net_id": network, "fixed_ips": [{"ip_address": "192.168.1.50"}] * 2})
    await attach("no addresses", {"net_id": network, "fixed_ips": []})
    await attach("address no address", {"net_id": network, "fixed_ips": [{"ip_address": "x"}]})
    await attach("unknown port", {"port_id": NOWHERE})
    await attach("network no uuid", {"net_id": "x"})
    await attach("unknown key", {"foo": 1})
    for token in ("reader", "other", "nobody"):
        await play.ask("not allowed", f"{_OPERATION}:create", "POST", path, {"interfaceAttachment": {}}, token=token)
        await play.ask("not allowed to detach", f"{_OPERATION}:delete", "DELETE", f"{path}/{NOWHERE}", token=token)
    for step, body in {
        "no attachment": [],
        "wrong key": {"foo": {}},
        "attachment null": {"interfaceAttachment": None},
    }.items():
        await play.ask(step, f"{_OPERATION}:create", "POST", path, body)
    await play.ask("detach unknown port", f"{_OPERATION}:delete", "DELETE", f"{path}/{NOWHERE}")
    await play.ask("unknown server", f"{_OPERATION}:create", "POST", f"/servers/{NOWHERE}/os-interface", {})
    await play.gone(server)


async def _until_gone(play: Play, path: str, port: str) -> None:
    for _ in range(600):
        shown = (await play.send("GET", path)).json()["interfaceAttachments"]
        if all(interface["port_id"] != port for interface in shown):
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{play.side.name}: port {port} is not detached")


async def states(play: Play) -> None:
    """In which states of a server interfaces may be changed."""
    other = await play.boot("other", networks=[{"port": play.side.ports[2]}])
    server = await _with_port(play, "server")
    path = f"/servers/{server}/os-interface"
    port = await _port(play, server)
    used = {"interfaceAttachment": {"port_id": play.side.ports[2]}}
    await play.ask("port in use", f"{_OPERATION}:create", "POST", path, used, token="member")
    attach = {"interfaceAttachment": {"port_id": NOWHERE}}
    await play.send("POST", f"/servers/{server}/action", {"lock": None}, token="admin")
    for token in ("member", "admin"):
        await play.ask("locked", f"{_OPERATION}:create", "POST", path, attach, token=token)
    await play.ask("locked, detach", f"{_OPERATION}:delete", "DELETE", f"{path}/{port}", token="member")
    await play.send("POST", f"/servers/{server}/action", {"unlock": None}, token="admin")
    await play.send("POST", f"/servers/{server}/action", {"suspend": None})
    await play.settle(server)
    await play.ask("suspended", f"{_OPERATION}:create", "POST", path, attach, token="member")
    await play.ask("suspended, detach", f"{_OPERATION}:delete", "DELETE", f"{path}/{port}", token="member")
    await play.gone(server, other)


async def security_groups(play: Play) -> None:
    server = await _with_port(play, "server")
    bare = await play.boot("bare")
    path = f"/servers/{server}/action"
    groups = f"/servers/{server}/os-security-groups"
    loose = frozenset({"id"})
    for at in ("2.1", "2.104"):
        for token in ("admin", "member", "reader", "other", "nobody"):
            await play.ask("groups", "server-security-groups:index", "GET", groups, at=at, token=token, loose=loose)
        await play.ask(
            "groups of none", "server-security-groups:index", "GET", f"/servers/{bare}/os-security-groups", at=at
        )
        for action in ("addSecurityGroup", "removeSecurityGroup"):
            operation = f"actions:{action}"
            for token in ("reader", "other", "nobody"):
                await play.ask(
                    f"{action} not allowed", operation, "POST", path, {action: {"name": "default"}}, at=at, token=token
                )
            await play.ask(f"{action} unknown", operation, "POST", path, {action: {"name": "nope"}}, at=at)
            await play.ask(f"{action} blank", operation, "POST", path, {action: {"name": " "}}, at=at)
            await play.ask(f"{action} empty", operation, "POST", path, {action: {"name": ""}}, at=at)
            await play.ask(f"{action} null", operation, "POST", path, {action: None}, at=at)
            await play.ask(
                f"{action} without ports",
                operation,
                "POST",
                f"/servers/{bare}/action",
                {action: {"name": "default"}},
                at=at,
            )
        for action in ("removeSecurityGroup", "removeSecurityGroup", "addSecurityGroup"):
            await play.ask(
                f"{action} default",
                f"actions:{action}",
                "POST",
                path,
                {action: {"name": "default"}},
                at=at,
                token="member",
            )
    await play.gone(server, bare)


async def old_addresses(play: Play) -> None:
    """Actions on addresses, until 2.43."""
    server = await _with_port(play, "server")
    bare = await play.boot("bare")
    path = f"/servers/{server}/action"
    made = await play.send("POST", "/os-floating-ips", {"pool": "public"}, at="2.1")
    floating = made.json()["floating_ip"]["id"]
    address = made.json()["floating_ip"]["ip"]
    play.name(address, "floating")
    asked: dict[str, dict[str, Any]] = {
        "addFixedIp": {"networkId": play.side.network},
        "removeFixedIp": {"address": "192.168.1.3"},
        "addFloatingIp": {"address": address},
        "removeFloatingIp": {"address": address},
    }
    for action, body in asked.items():
        operation = f"actions:{action}"
        await play.ask(f"{action} too late", operation, "POST", path, {action: body}, at="2.44")
        for token in ("reader", "other", "nobody"):
            if action != "removeFloatingIp":
                await play.ask(f"{action} not allowed", operation, "POST", path, {action: body}, at="2.43", token=token)
        for name, wrong in {"null": None, "empty": {}, "unknown key": {**body, "x": 1}}.items():
            await play.ask(f"{action} {name}", operation, "POST", path, {action: wrong}, at="2.1")
    for action in ("addFloatingIp", "removeFloatingIp", "removeFixedIp"):
        await play.ask(f"{action} no address", f"actions:{action}", "POST", path, {action: {"address": "x"}}, at="2.1")
    add = {"addFloatingIp": {"address": "203.0.113.250"}}
    await play.ask("floating IP unknown", "actions:addFloatingIp", "POST", path, add, at="2.43")
    remove = {"removeFloatingIp": {"address": "203.0.113.250"}}
    await play.ask("floating IP unknown, remove", "actions:removeFloatingIp", "POST", path, remove, at="2.43")
    own = {"addFloatingIp": {"address": address, "fixed_address": "192.0.2.1"}}
    await play.ask("floating IP, foreign fixed one", "actions:addFloatingIp", "POST", path, own, at="2.43")
    bare_path = f"/servers/{bare}/action"
    await play.ask(
        "floating IP, no ports",
        "actions:addFloatingIp",
        "POST",
        bare_path,
        {"addFloatingIp": {"address": address}},
        at="2.43",
    )
    await play.ask(
        "floating IP not here",
        "actions:removeFloatingIp",
        "POST",
        path,
        {"removeFloatingIp": {"address": address}},
        at="2.43",
    )
    await play.ask(
        "floating IP",
        "actions:addFloatingIp",
        "POST",
        path,
        {"addFloatingIp": {"address": address}},
        at="2.43",
        token="member",
    )
    await play.gone(server, bare)
    await play.send("DELETE", f"/os-floating-ips/{floating}", at="2.1")
