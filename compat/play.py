"""Plays a story (a list of requests) against one service and keeps the normalised answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import httpx

from compat.microversions import LATEST
from compat.normal import Normaliser, fault, kind

SETTLE = 60.0
"""Seconds a server may take to come to rest."""


async def _as_it_is(options: Mapping[str, int]) -> None:
    """Of a side that was started with them."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two services."""

    name: str
    http: httpx.AsyncClient
    base: str
    project: str
    hosts: tuple[str, ...]
    """Names of the compute services' hosts, and of their nodes where those differ."""
    image: str
    other_image: str
    network: str
    """A network of the project; the only one but for the external network 'public'."""
    ports: tuple[str, ...]
    """Ports of the project's own on it, which nobody uses; one for each story that needs one."""
    group: str
    """The project's security group 'default'."""
    configure: Callable[[Mapping[str, int]], Awaitable[None]] = _as_it_is
    """Gives options these values, and 0 to those that an earlier story changed."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Key:
    """One request of a story. `number` tells repeated ones apart."""

    story: str
    step: str
    version: str
    token: str
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    operation: str
    status: int
    headers: dict[str, str]
    body: Any


@dataclass(kw_only=True)
class Play:
    side: Side
    story: str
    thorough: bool = False
    """Try sweeps at every version instead of at the boundaries."""
    answers: dict[Key, Answer] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names |= {self.side.base: "<url>", self.side.project: "<project>"}
        self.names |= {host: "<host>" for host in self.side.hosts}

    def name(self, value: Any, mark: str) -> None:
        """From here on `value` stands as `<mark>` in what is compared."""
        self.names[str(value)] = f"<{mark}>"

    async def ask(
        self,
        step: str,
        operation: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        at: str | None = LATEST,
        token: str = "admin",
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
        loose: Set[str] = frozenset(),
        unordered: Set[str] = frozenset(),
        shape: bool = False,
    ) -> httpx.Response:
        """Send a request and keep the answer under `step`.

        `at` None sends no version. Paths that do not begin with /v2 are behind /v2.1, unless
        they begin with two slashes, of which the first is dropped. Of keys in `loose`
        only the type counts, of lists in `unordered` not the order; `shape`: of the whole body only types.
        """
        answer = await self.send(method, path, body, at=at, token=token, headers=headers, raw=raw)
        normal = Normaliser(self.names)
        content: Any = answer.text
        if answer.headers.get("content-type", "").startswith("application/json") and answer.text:
            content = answer.json()
        if answer.status_code >= 400:
            content = fault(content)
        content = kind(content) if shape else content
        key = Key(story=self.story, step=step, version=at or "none", token=token)
        while key in self.answers:
            key = Key(story=self.story, step=step, version=at or "none", token=token, number=key.number + 1)
        self.answers[key] = Answer(
            operation=operation,
            status=answer.status_code,
            headers=normal.headers(answer.headers),
            body=normal.body(content, loose, unordered),
        )
        return answer

    def note(self, step: str, operation: str, version: str, token: str, what: Any) -> None:
        """Keep something a story found out itself."""
        key = Key(story=self.story, step=step, version=version, token=token)
        self.answers[key] = Answer(operation=operation, status=0, headers={}, body=what)

    async def sweep(self, step: str, operation: str, path: str, at: Iterable[str], **options: Any) -> None:
        """GET at many versions."""
        for version in at:
            await self.ask(step, operation, "GET", path, at=version, **options)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        at: str | None = LATEST,
        token: str = "admin",
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> httpx.Response:
        """A request that is not compared."""
        sent = {"X-Auth-Token": token}
        if at is not None:
            sent["X-OpenStack-Nova-API-Version"] = at
            sent["OpenStack-API-Version"] = f"compute {at}"
        sent |= dict(headers or {})
        content = raw
        if body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        if path.startswith("//"):
            path = path[1:]
        elif not path.startswith("/v2") and path != "/":
            path = "/v2.1" + path
        return await self.side.http.request(method, self.side.base + path, content=content, headers=sent)

    # What stories need again and again

    def server(self, version: str = LATEST, **fields: Any) -> dict[str, Any]:
        """The body of a create without networking."""
        wanted: dict[str, Any] = {"name": "vm", "imageRef": self.side.image, "flavorRef": "1"}
        if int(version.partition(".")[2]) >= 37:
            wanted["networks"] = "none"
        return {"server": wanted | fields}

    async def boot(self, mark: str, token: str = "admin", **fields: Any) -> str:
        """An ACTIVE server, not compared."""
        answer = await self.send("POST", "/servers", self.server(**fields), token=token)
        if answer.status_code != 202:
            raise RuntimeError(f"{self.side.name} refuses a plain server: {answer.status_code} {answer.text}")
        server: str = answer.json()["server"]["id"]
        self.name(server, mark)
        await self.settle(server)
        return server

    async def settle(self, server: str) -> dict[str, Any]:
        """Wait until nothing is under way; {} when the server is gone."""
        until = time.monotonic() + SETTLE
        while time.monotonic() < until:
            answer = await self.send("GET", f"/servers/{server}")
            if answer.status_code == 404:
                return {}
            found: dict[str, Any] = answer.json()["server"]
            if found["status"] != "BUILD" and found["OS-EXT-STS:task_state"] is None:
                return found
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{self.side.name}: server {server} does not come to rest: {found}")

    async def gone(self, *servers: str) -> None:
        """Delete these, not compared."""
        for server in servers:
            await self.send("DELETE", f"/servers/{server}")
        await self.vanish(*servers)

    async def vanish(self, *servers: str) -> None:
        """Wait until what is being deleted is gone."""
        until = time.monotonic() + SETTLE
        for server in servers:
            while (await self.send("GET", f"/servers/{server}")).status_code != 404:
                if time.monotonic() > until:
                    raise RuntimeError(f"{self.side.name}: server {server} does not go away")
                await asyncio.sleep(0.05)


Story = Callable[[Play], Awaitable[None]]


async def play(side: Side, name: str, story: Story) -> dict[Key, Answer]:
    told = Play(side=side, story=name)
    await story(told)
    return told.answers
