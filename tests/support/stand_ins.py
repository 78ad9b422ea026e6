"""Identity, Image and Networking in one small process: `python -m tests.support.stand_ins PORT`.

A token says itself what it stands for, `USER:PROJECT:ROLE,ROLE`; there is one image, of 64 bytes. A second argument
names a file (JSON) that is read at each question: `catalog`, more of Identity's; `agents` and (further)
`extensions`, those of Networking, and `apis`: where Compute is told of ports, of which there are some only with this. A
third is the address to listen at, instead of loopback's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn

from tests.support.networking import Networking
from tests.support.processes import HERE

SERVICE_TOKEN = "nova:service:admin,service"
PASSWORD = "Password123$"
IMAGE = "70f5c0de-0000-4000-8000-00000000cafe"
NEVER = "2099-01-01T00:00:00.000000Z"
DATA = bytes(64)


def networking_file(more: Path) -> Path:
    """What Networking keeps, by the name of the file of more."""
    return more.with_name("networking.json")


def token_document(token: str, url: str, more: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What Identity says of a token; None for one that is no good. `more` is in the catalog too."""
    parts = token.split(":")
    if len(parts) != 3:
        return None
    user, project, roles = parts
    return {
        "token": {
            "methods": ["password"],
            "expires_at": NEVER,
            "user": {"id": user, "name": user, "domain": {"id": "default", "name": "Default"}},
            "project": {"id": project, "name": project, "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": role, "name": role} for role in roles.split(",")],
            "catalog": [
                {
                    "type": "image",
                    "endpoints": [{"interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": url}],
                },
                *more,
            ],
        }
    }


def image_document(image_id: str) -> dict[str, Any]:
    return {
        "id": image_id,
        "name": "tiny",
        "status": "active",
        "visibility": "public",
        "owner": "service",
        "size": len(DATA),
        "disk_format": "raw",
        "container_format": "bare",
        "min_disk": 0,
        "min_ram": 0,
        "checksum": None,
    }


class StandIns:
    """ASGI."""

    def __init__(self, url: str, more: Path | None = None) -> None:
        self.url = url
        self._more = more
        self._networking: Networking | None = None

    @property
    def more(self) -> dict[str, Any]:
        found: dict[str, Any] = {"catalog": [], "agents": [], "extensions": []}
        return found | json.loads(self._more.read_text()) if self._more and self._more.exists() else found

    @property
    def networking(self) -> Networking | None:
        if self._networking is None and self._more is not None and "apis" in self.more:
            self._networking = Networking(networking_file(self._more), lambda: self.more["apis"])
        return self._networking

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        networking = self.networking
        path = scope["path"].removeprefix("/v2.0/")
        if networking is None or path == scope["path"] or path in ("extensions", "agents"):
            status, extra, content = self.answer(scope["method"], scope["path"], headers, body)
        elif headers.get("x-auth-token") != SERVICE_TOKEN:
            status, extra, content = 401, [], {}
        else:
            query = scope["query_string"].decode()
            status, content = await networking.answer(scope["method"], path, query, body)
            extra = []
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        sent = [(b"content-length", str(len(data)).encode()), (b"content-type", b"application/json"), *extra]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": data})

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], Any]:
        if path == "/v3/auth/tokens" and method == "POST":
            given = json.loads(body)["auth"]["identity"]["password"]["user"]
            if (given["name"], given["password"]) != ("nova", PASSWORD):
                return 401, [], {}
            return (
                201,
                [(b"x-subject-token", SERVICE_TOKEN.encode())],
                token_document(SERVICE_TOKEN, self.url, self.more["catalog"]),
            )
        if headers.get("x-auth-token") != SERVICE_TOKEN:
            return 401, [], {}
        if path == "/v3/auth/tokens":
            found = token_document(headers["x-subject-token"], self.url, self.more["catalog"])
            return (200, [], found) if found else (404, [], {})
        if path.startswith("/v3/projects/"):
            return 200, [], {"project": {"id": path.rpartition("/")[2]}}
        if path == "/v2/images":
            return 200, [], {"images": [image_document(IMAGE)]}
        if path == "/v2.0/extensions":
            aliases = ["binding", "security-group", *self.more["extensions"]]
            return 200, [], {"extensions": [{"alias": alias} for alias in aliases]}
        if path == "/v2.0/agents":
            return 200, [], {"agents": self.more["agents"]}
        if path == f"/v2/images/{IMAGE}":
            return 200, [], image_document(IMAGE)
        if path == f"/v2/images/{IMAGE}/file":
            return 200, [], DATA
        return 404, [], {}


if __name__ == "__main__":
    named = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    address = sys.argv[3] if len(sys.argv) > 3 else HERE.address
    place = StandIns(f"http://{address}:{sys.argv[1]}", named)
    uvicorn.run(place, host=address, port=int(sys.argv[1]), log_level="warning")
