"""Generated bodies and queries at every operation on servers, at random versions: never a failure of ours.

Bodies are made from each operation's own schema at the version, so that most of a body is right and one
thing in it is not; that gets deeper than random JSON.
"""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from kilonova.api.routing import Action, Route
from kilonova.api.servers.routes import ROUTES
from kilonova.api.versions import LEGACY, Version
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages
from tests.support import server_rows as rows

REQUESTS = 250
"""Of each seed."""

TEXTS = (
    "", " ", "x", " x ", "1", "-1", "none", "auto", "true", "HARD", "a/b", "a:b:c", "\u00e9\u0000", "\U0001f600",
    "x" * 300, rows.IMAGE, "1.2.3.4", "fe80::1", "YQ==", "nova", "k", "[", "(a+)+$", "2026-01-01T00:00:00Z", "9" * 30,
)  # fmt: skip


class Generator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        return self.random.choice(TEXTS)

    def anything(self, depth: int = 2) -> Any:
        kinds = [
            lambda: None,
            lambda: True,
            lambda: self.random.choice([0, -1, 1, 2**40, 2**70, 1.5, 1e300]),
            self.text,
        ]
        if depth:
            kinds.append(lambda: [self.anything(depth - 1) for _ in range(self.random.randrange(3))])
            kinds.append(lambda: {self.text(): self.anything(depth - 1) for _ in range(self.random.randrange(3))})
        return self.random.choice(kinds)()

    def value(self, schema: Any) -> Any:
        """What the schema asks for; now and then something else."""
        return self.anything() if self.random.random() < 0.08 else self.fitting(schema)

    def fitting(self, schema: Any) -> Any:
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if "oneOf" in schema:
            return self.value({"type": schema.get("type", "string")} | self.random.choice(schema["oneOf"]))
        wanted = schema.get("type", "any")
        if isinstance(wanted, list):
            wanted = self.random.choice(wanted)
        if wanted == "object":
            if "patternProperties" in schema:
                return {self.text(): self.text() for _ in range(self.random.randrange(3))}
            required = schema.get("required", ())
            return {
                name: self.value(inner)
                for name, inner in schema.get("properties", {}).items()
                if name in required or self.random.random() < 0.15
            }
        if wanted == "array":
            return [self.value(schema.get("items", {})) for _ in range(self.random.randrange(3))]
        if wanted == "string":
            return rows.IMAGE if schema.get("format") == "uuid" else self.text()
        if wanted in ("integer", "number"):
            return self.random.choice([0, 1, 2, -1, 10**12])
        return {"boolean": True, "null": None}.get(wanted, self.anything())

    def request(self, operation: Route | Action, server_id: str) -> tuple[str, str, str, Any]:
        """Method, path, version and body."""
        version = Version(2, self.random.randint(operation.first.minor, operation.last.minor))
        path = operation.path.replace("{server_id}", server_id)
        if not path.startswith(f"/servers/{server_id}/"):
            path = path.replace("{id}", server_id)
        for name in ("id", "key", "tag", "network"):
            path = path.replace("{" + name + "}", quote(self.text() or "k"))
        if operation.query is not None:
            known = [*operation.query.plain(version)["properties"], "foo", "_x"]
            pairs = [(self.random.choice(known), self.text()) for _ in range(self.random.randrange(4))]
            path += "?" + urlencode(pairs) if pairs else ""
        body = None if operation.body is None else self.value(operation.body.plain(version))
        prefix = f"/v2/{rows.PROJECT}" if version == LEGACY else "/v2.1"
        method = "POST" if isinstance(operation, Action) else operation.method
        return method, prefix + path, str(version), body


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_generated_request_makes_a_server_error(api: Client, seed: int) -> None:
    assert isinstance(api.rt.images, StaticImages)
    api.rt.images.add(rows.IMAGE)
    await rows.add_flavor(api.rt.db)
    states = (("active", None), ("stopped", None), ("building", "spawning"), ("error", None), ("paused", None))
    servers = [
        await rows.add(
            api.rt.db, vm_state=vm_state, task_state=task_state, host=None, tags=("t",), metadata={"k": "v"},
            addresses=rows.ADDRESSES,
        )
        for vm_state, task_state in states
    ]  # fmt: skip
    generator = Generator(seed)
    statuses = set()
    for number in range(REQUESTS):
        operation = ROUTES[number % len(ROUTES)]
        method, path, version, body = generator.request(operation, generator.random.choice(servers))
        token = generator.random.choice(["admin", "admin", "member", "reader", "other"])
        content = b"" if body is None else msgspec.json.encode(body)
        headers = {"X-Auth-Token": token, "OpenStack-API-Version": f"compute {version}"}
        answer = await api.http.request(method, path, content=content, headers=headers)
        statuses.add(answer.status_code)
        assert answer.status_code < 500 or answer.status_code == 501, (method, path, version, token, body, answer.text)
        if answer.status_code >= 400:
            (error,) = answer.json().values()
            assert error["code"] == answer.status_code
            assert error["message"]
    # Deep enough to succeed, to conflict and to be refused for every reason.
    assert statuses >= {200, 202, 400, 404, 501}
