"""Clients by the dozen: requests spread over the API processes of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

from tests.support.cluster import IMAGE, Cluster

PROJECT = "6f70656e737461636b20342065766572"
ADMIN = f"root:{PROJECT}:admin,member,reader"
NEWEST = "compute 2.90"


class Load:
    """Asynchronous clients of one cluster, `clients` requests at a time; seconds for a connection."""

    def __init__(self, cluster: Cluster, *, clients: int = 32, token: str = ADMIN, connecting: float = 60) -> None:
        self.cluster = cluster
        self.apis = cluster.of("api")
        self._requests = itertools.count()
        self._room = asyncio.Semaphore(clients)
        headers = {"X-Auth-Token": token, "OpenStack-API-Version": NEWEST}
        # Servers end idle connections after five seconds: one must not be taken up again just then.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients, keepalive_expiry=2.0)
        timeout = httpx.Timeout(60, connect=connecting)
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits)

    async def __aenter__(self) -> Load:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request, to the next of the API processes. Raises what httpx raises."""
        async with self._room:
            api = self.apis[next(self._requests) % len(self.apis)]
            url = f"http://{api.place.address}:{api.port}/v2.1{path}"
            return await self._http.request(method, url, json=body, headers=headers)

    async def together(self, requests: Sequence[tuple[str, str, Any]]) -> list[httpx.Response]:
        return await asyncio.gather(*(self.ask(*request) for request in requests))

    async def flavor(self, name: str, *, vcpus: int = 1, ram: int = 64, disk: int = 0) -> None:
        body = {"flavor": {"name": name, "id": name, "ram": ram, "vcpus": vcpus, "disk": disk}}
        answer = await self.ask("POST", "/flavors", body)
        assert answer.status_code in (200, 409), answer.text

    async def create(self, count: int, name: str = "s") -> list[str]:
        """So many servers at once, all of which are accepted; their ids."""
        answers = await self.together([("POST", "/servers", server(f"{name}{n}")) for n in range(count)])
        assert {answer.status_code for answer in answers} == {202}
        return [answer.json()["server"]["id"] for answer in answers]

    @contextlib.asynccontextmanager
    async def quota(self, limit: int) -> AsyncIterator[None]:
        """The project may have so many servers; the default again afterwards."""
        path = f"/os-quota-sets/{PROJECT}"
        assert (await self.ask("PUT", path, {"quota_set": {"instances": limit}})).status_code == 200
        try:
            yield
        finally:
            assert (await self.ask("DELETE", path)).status_code == 202

    async def servers(self, query: str = "") -> list[dict[str, Any]]:
        """All of them, in detail, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            marker = f"&marker={found[-1]['id']}" if found else ""
            answer = await self.ask("GET", f"/servers/detail?limit=500{query}{marker}")
            assert answer.status_code == 200, answer.text
            page = answer.json()["servers"]
            found += page
            if len(page) < 500:
                return found

    async def settled(self, count: int, query: str = "") -> list[dict[str, Any]]:
        """Wait until none of `count` servers is on its way any more."""
        while True:
            found = await self.servers(query)
            if len(found) == count and all(server["OS-EXT-STS:task_state"] is None for server in found):
                return found
            await asyncio.sleep(0.5)

    async def clear(self) -> None:
        """Delete every server, and wait until they are gone."""
        found = await self.servers()
        await self.together([("DELETE", f"/servers/{server['id']}", None) for server in found])
        while await self.servers():
            await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def ready(cluster: Cluster, *, clients: int = 32) -> AsyncIterator[Load]:
    """Clients of a cluster that has the flavor of `server`."""
    async with Load(cluster, clients=clients) as load:
        await load.flavor("tiny")
        yield load


async def overfill(load: Load, *, hosts: int, vcpus: int, demand: int) -> list[dict[str, Any]]:
    """Ask at once for more servers of one CPU than there is room for: exactly those that fit are made. All of them."""
    capacity = hosts * vcpus
    await load.create(demand)
    found = await load.settled(demand)
    assert Counter(each["status"] for each in found) == {"ACTIVE": capacity, "ERROR": demand - capacity}
    taken = Counter(each["OS-EXT-SRV-ATTR:host"] for each in found if each["status"] == "ACTIVE")
    assert set(taken.values()) == {vcpus}
    assert len(taken) == hosts
    return found


async def exceed_quota(load: Load, limit: int) -> list[dict[str, Any]]:
    """Ask at once for four times as many servers as the project may have: exactly as many are made. All of them."""
    async with load.quota(limit):
        answers = await load.together([("POST", "/servers", server(f"s{n}")) for n in range(4 * limit)])
        assert Counter(answer.status_code for answer in answers) == {202: limit, 403: 3 * limit}
        return await load.settled(limit)


def server(name: str = "s", flavor: str = "tiny", **more: Any) -> dict[str, Any]:
    """The body of a create without ports; `hints` stand beside the server."""
    hints = more.pop("hints", None)
    body: dict[str, Any] = {
        "server": {"name": name, "flavorRef": flavor, "imageRef": IMAGE, "networks": "none", **more}
    }
    if hints:
        body["os:scheduler_hints"] = hints
    return body
