"""Key pairs."""

from __future__ import annotations

from typing import Any

from compat.microversions import around
from compat.play import Play
from compat.stories.server_show import KEY

MADE = frozenset({"public_key", "fingerprint", "private_key"})
SHOWN = frozenset({"id"})


async def life(play: Play) -> None:
    for at in around(2, 10, 35, 75, 92, 102):
        body: dict[str, Any] = {"keypair": {"name": "imported", "public_key": KEY}}
        await play.ask("import", "key-pairs:create", "POST", "/os-keypairs", body, at=at)
        await play.ask("same name", "key-pairs:create", "POST", "/os-keypairs", body, at=at)
        await play.ask("show", "key-pairs:show", "GET", "/os-keypairs/imported", at=at, loose=SHOWN)
        await play.ask("show as member", "key-pairs:show", "GET", "/os-keypairs/imported", at=at, token="member")
        await play.ask("list", "key-pairs:list", "GET", "/os-keypairs", at=at)
        await play.ask("unknown parameter", "key-pairs:show", "GET", "/os-keypairs/imported?foo=1", at=at, loose=SHOWN)
        await play.ask("delete", "key-pairs:delete", "DELETE", "/os-keypairs/imported", at=at)
        await play.ask("delete again", "key-pairs:delete", "DELETE", "/os-keypairs/imported", at=at)
        body = {"keypair": {"name": "made"}}
        await play.ask("generate", "key-pairs:create", "POST", "/os-keypairs", body, at=at, loose=MADE)
        await play.send("DELETE", "/os-keypairs/made")
        body = {"keypair": {"name": "certificate", "type": "x509"}}
        await play.ask("generate x509", "key-pairs:create", "POST", "/os-keypairs", body, at=at, loose=MADE)
        await play.ask("show x509", "key-pairs:show", "GET", "/os-keypairs/certificate", at=at, loose=SHOWN | MADE)
        await play.ask("list x509", "key-pairs:list", "GET", "/os-keypairs", at=at, loose=MADE)
        await play.send("DELETE", "/os-keypairs/certificate")
    for token in ("member", "reader", "nobody"):
        await play.ask(
            "create as",
            "key-pairs:create",
            "POST",
            "/os-keypairs",
            {"keypair": {"name": "as", "public_key": KEY}},
            token=token,
        )
        await play.ask("list as", "key-pairs:list", "GET", "/os-keypairs", token=token)
        await play.ask("delete as", "key-pairs:delete", "DELETE", "/os-keypairs/as", token=token)


async def refused(play: Play) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "junk key": {"public_key": "junk"},
        "name with odd characters": {"name": "a!b/"},
        "name with at": {"name": "a@b.c"},
        "name spaced": {"name": " a "},
        "name with spaces": {"name": "a b_c-d"},
        "name long": {"name": "a" * 256},
        "name empty": {"name": ""},
        "name null": {"name": None},
        "name number": {"name": 1},
        "name unicode": {"name": "ä"},
        "key empty": {"public_key": ""},
        "key null": {"public_key": None},
        "type wrong": {"type": "foo"},
        "type": {"type": "ssh"},
        "user": {"user_id": "someone"},
        "unknown": {"foo": 1},
        "junk certificate": {"type": "x509", "public_key": "junk"},
        "key of two lines": {"public_key": KEY + "\nx"},
        "ed25519": {
            "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB5Yw1dR4bCwM2Lk5fGJ3BqgP5vZ2qXkq0xYwJmIyT3N a@b"
        },
        "key without comment": {"public_key": " ".join(KEY.split()[:2])},
    }
    for name, fields in wanted.items():
        for at in ("2.1", "2.9", "2.10", "2.91", "2.92", "2.104"):
            body = {"keypair": {"name": "tried", "public_key": KEY} | fields}
            answer = await play.ask(name, "key-pairs:create", "POST", "/os-keypairs", body, at=at)
            if answer.status_code < 300:
                owner = fields.get("user_id")
                made = answer.json()["keypair"]["name"]
                await play.send("DELETE", f"/os-keypairs/{made}" + (f"?user_id={owner}" if owner else ""))
    wrong: list[dict[str, Any]] = [
        {},
        {"keypair": None},
        {"keypair": {}},
        {"keypair": {"public_key": KEY}},
        {"keypair": {"name": "a", "public_key": KEY}, "x": 1},
    ]
    for body in wrong:
        await play.ask(f"body {sorted(body)}", "key-pairs:create", "POST", "/os-keypairs", body)
    for at in ("2.10", "2.104"):
        body = {"keypair": {"name": "tried", "public_key": KEY, "user_id": "someone"}}
        await play.ask("user, as member", "key-pairs:create", "POST", "/os-keypairs", body, at=at, token="member")
        await play.ask(
            "list user, as member", "key-pairs:list", "GET", "/os-keypairs?user_id=someone", at=at, token="member"
        )
    await play.ask("missing", "key-pairs:show", "GET", "/os-keypairs/nope")


async def lists(play: Play) -> None:
    for number in range(3):
        await play.send("POST", "/os-keypairs", {"keypair": {"name": f"p{number}", "public_key": KEY}})
    await play.send("POST", "/os-keypairs", {"keypair": {"name": "theirs", "public_key": KEY, "user_id": "someone"}})
    for query in (
        "",
        "?limit=1",
        "?limit=1&marker=p0",
        "?marker=p1",
        "?marker=p2",
        "?marker=nope",
        "?limit=x",
        "?limit=0",
        "?limit=-1",
        "?user_id=someone",
        "?user_id=nobody",
        "?user_id=someone&limit=1",
        "?foo=bar",
        "?limit=1&foo=bar",
        "?limit=1&limit=2",
    ):
        for at in ("2.1", "2.9", "2.10", "2.34", "2.35", "2.74", "2.75", "2.104"):
            await play.ask(f"list{query}", "key-pairs:list", "GET", f"/os-keypairs{query}", at=at)
    for at in ("2.1", "2.10", "2.104"):
        await play.ask("theirs", "key-pairs:show", "GET", "/os-keypairs/theirs?user_id=someone", at=at, loose=SHOWN)
    for number in range(3):
        await play.send("DELETE", f"/os-keypairs/p{number}")
    await play.ask("delete theirs", "key-pairs:delete", "DELETE", "/os-keypairs/theirs?user_id=someone")
