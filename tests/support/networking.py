"""Networking as REST, within the stand-ins: what `FakeNetworking` does, kept in a file that outlives the process.

Hosts' planes are here too: a port that is bound to a host becomes ACTIVE a little later, and Compute is told; when no
API answers, it is not told.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx

from kilonova.clients.network import plural, singular
from kilonova.errors import Invalid, KilonovaError, NotFound, OverQuota
from kilonova.networking import Document, NetworkConflict
from kilonova.testing.network import FakeNetworking

NETWORK = "11111111-0000-4000-8000-00000000cafe"
WIRING = 0.3
"""Seconds that a host's plane takes, at most."""
TOLD = "neutron:service:admin,service"


class Networking:
    def __init__(self, file: Path, apis: Callable[[], list[str]]) -> None:
        """`apis`: where Compute answers, as URLs."""
        self.fake = FakeNetworking()
        self.fake.on_event = self._on_event
        self._file = file
        self._apis = apis
        self._tasks: set[asyncio.Task[None]] = set()
        if file.exists():
            self.fake.collections = json.loads(file.read_text())
        else:
            self.fake.add_network(id=NETWORK, project_id="service", cidrs=("10.0.0.0/16",), shared=True)
            self._keep()

    async def answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Any]:
        """`path` without the version."""
        try:
            return await self._answer(method, path, query, json.loads(body) if body else {})
        except KilonovaError as error:
            return _refusal(error)

    async def _answer(self, method: str, path: str, query: str, body: Document) -> tuple[int, Any]:
        collection, _, id = path.partition("/")
        if collection == "quotas":
            return 200, {"quota": await self.fake.quota(id.partition("/")[0])}
        if collection not in self.fake.collections:
            raise NotFound("The resource could not be found.")
        one, many = singular(collection), plural(collection)
        if method == "GET":
            if id:
                return 200, {one: await self.fake.show(collection, id)}
            return 200, {many: await self.fake.find(collection, parse_qs(query))}
        if method == "POST":
            made = await self.fake.create(collection, body[many] if many in body else [body[one]])
            self._wire(collection, *made)
            answer: tuple[int, Any] = 201, {many: made} if many in body else {one: made[0]}
        elif method == "PUT":
            changed = await self.fake.update(collection, id, body[one])
            self._wire(collection, changed)
            answer = 200, {one: changed}
        else:
            known = id in self.fake.collections[collection]
            await self.fake.delete(collection, id)
            answer = (204, {}) if known else (404, {})
        # Before the answer, as a database would.
        self._keep()
        return answer

    def _keep(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self.fake.collections))
        new.replace(self._file)

    def _wire(self, collection: str, *documents: Document) -> None:
        for port in documents if collection == "ports" else ():
            if port["binding:host_id"] and port["status"] != "ACTIVE":
                self._later(self._wired(port["id"], port["binding:host_id"]))

    async def _wired(self, port_id: str, host: str) -> None:
        await asyncio.sleep(random.uniform(0, WIRING))
        await self.fake.wired(port_id, host)
        self._keep()

    async def _on_event(self, name: str, server_uuid: str, port_id: str) -> None:
        self._later(self._tell({"name": name, "server_uuid": server_uuid, "tag": port_id, "status": "completed"}))

    async def _tell(self, event: Document) -> None:
        headers = {"X-Auth-Token": TOLD, "OpenStack-API-Version": "compute 2.90"}
        if apis := self._apis():
            url = f"{random.choice(apis)}/os-server-external-events"
            try:
                async with httpx.AsyncClient(timeout=20) as http:
                    await http.post(url, json={"events": [event]}, headers=headers)
            except httpx.HTTPError:
                return

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refusal(error: KilonovaError) -> tuple[int, Any]:
    status, kind = 500, type(error).__name__
    match error:
        case NotFound():
            status = 404
        case OverQuota():
            status = 409
        case NetworkConflict():
            status, kind = 409, error.reason
        case Invalid():
            status = 400
    return status, {"NeutronError": {"type": kind, "message": error.message, "detail": ""}}
