"""How many statements a request or an operation sends, on all of Compute's connections, the engine included.

Counted, not timed: the same on every machine. `tests/unit/test_statement_budget.py` holds them to BUDGETS.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench import scene
from bench.networking import Calls, WatchedNetworking
from bench.watch import Watch
from kilonova.api.app import create_app
from kilonova.bus.messages import PowerReport
from kilonova.db.engine import Database
from kilonova.reconcile.power_state import PowerStates
from kilonova.testing.cloud import TestCloud, make_cloud
from kilonova.testing.identity import PROJECT, StaticTokens
from kilonova.testing.network import FakeNetworking

BUDGETS = {
    "GET /servers/{id}": 2,
    "GET /servers/detail, 1 server": 4,
    "GET /servers/detail, 20 servers": 4,
    "GET /servers, 20 servers": 2,
    "GET /flavors/detail": 2,
    "GET /limits": 3,
    "GET /os-hypervisors/detail": 3,
    "POST /servers, refused by its schema": 0,
    "create to ACTIVE, networks 'none'": 20,
    "delete to gone": 15,
    "create to ACTIVE, one port": 20,
    "delete to gone, one port": 16,
    "attach an interface": 20,
    "detach an interface": 20,
}
"""Data statements at most; BEGIN and COMMIT are counted apart."""

CALLS = {
    "create to ACTIVE, one port": 7,
    "create to ACTIVE, four ports": 7,
    "delete to gone, one port": 2,
    "attach an interface": 10,
    "detach an interface": 2,
}
"""Of Networking at most, by action. What can be asked in one call for all ports of a server is."""

_BACKGROUND = (
    "UPDATE services SET last_seen",  # heartbeats, one statement a second for all hosts together
    "SELECT instance_actions.id, instance_actions.state \nFROM instance_actions",  # the sweep for operations
    "UPDATE instance_actions SET lease_until",  # leases, one statement for all operations of a process
    "SELECT instance_actions.state, instance_actions.error",  # looks of a request that waits for its operation
)


_REPORTED: contextvars.ContextVar[bool] = contextvars.ContextVar("what is sent is for a report of power states")


@contextlib.contextmanager
def _reports_left_out() -> Iterator[None]:
    """Agents tell power states at their start, which may be looked into a moment later, and now and then."""
    look_into = PowerStates.on_report

    async def on_report(self: PowerStates, report: PowerReport) -> list[int]:
        _REPORTED.set(True)
        return await look_into(self, report)

    PowerStates.on_report = on_report  # type: ignore[method-assign]
    try:
        yield
    finally:
        PowerStates.on_report = look_into  # type: ignore[method-assign]


@dataclass(slots=True)
class Counted:
    """`data` statements in their order, `transactions` that write (BEGIN), `commits` of them."""

    data: list[str] = field(default_factory=list)
    transactions: int = 0


@contextlib.contextmanager
def counting(db: Database) -> Any:
    """Count what is sent meanwhile, but for what happens by the clock (heartbeats, sweeps, leases)."""
    counted = Counted()

    def on_statement(text: str) -> None:
        if _REPORTED.get(False):
            return
        if text.startswith("BEGIN"):
            counted.transactions += 1
        elif not text.startswith(_BACKGROUND):
            counted.data.append(text)

    before, db.on_statement = db.on_statement, on_statement
    try:
        yield counted
    finally:
        db.on_statement = before


class Bench:
    """A cloud with an API client, for counting."""

    def __init__(self, cloud: TestCloud, http: httpx.AsyncClient, watch: Watch) -> None:
        self.cloud = cloud
        self._watch = watch
        self.http = http
        self.db = cloud.rt.db

    async def request(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        content = None if body is None else json.dumps(body).encode()
        answer = await self.http.request(method, f"/v2.1{path}", content=content)
        if answer.status_code != status:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    async def counted(self, method: str, path: str, body: Any = None, status: int = 200) -> Counted:
        counted: Counted
        with counting(self.db) as counted:
            await self.request(method, path, body, status)
        return counted

    async def settled(self, uuid: str, *, gone: bool = False) -> None:
        """Until the server is ACTIVE, or gone. Raises RuntimeError for ERROR."""
        wanted = "deleted != 0" if gone else "vm_state = 'active'"
        while not self._watch.count(f"uuid = ? AND operation_id IS NULL AND {wanted}", [uuid]):
            if self._watch.count("uuid = ? AND vm_state = 'error'", [uuid]):
                raise RuntimeError(f"server {uuid} is in state ERROR")
            await asyncio.sleep(0.02)
        await self.cloud.conductor.engine.idle()

    async def create(self, networks: Any = "none") -> str:
        body = {"server": scene.SERVER["server"] | {"networks": networks}}
        created = await self.request("POST", "/servers", body, 202)
        return str(created["server"]["id"])


@contextlib.asynccontextmanager
async def bench(directory: Path, network: FakeNetworking | None = None) -> AsyncIterator[Bench]:
    """`network`: Networking of the cloud, which has none otherwise."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_reports_left_out())
        cloud = await stack.enter_async_context(
            make_cloud(
                directory, settings=scene.SETTINGS, options=scene.HOST, sweep=3600.0, synchronous="OFF", network=network
            )
        )
        scene.add_image(cloud.images)
        await scene.add_flavors(cloud.rt.db)
        transport = httpx.ASGITransport(app=create_app(cloud.rt, StaticTokens()))
        headers = {
            "X-Auth-Token": "admin",
            "OpenStack-API-Version": f"compute {scene.VERSION}",
            "Content-Type": "application/json",
        }
        async with httpx.AsyncClient(transport=transport, base_url="http://compute", headers=headers) as http:
            watch = stack.enter_context(contextlib.closing(Watch(directory)))
            made = Bench(cloud, http, watch)
            # The project's first server makes its row of quotas and warms the picture of hosts.
            await made.settled(await made.create())
            yield made


async def count_requests(made: Bench, servers_listed: int = 20) -> dict[str, Counted]:
    """Of requests that read, and of one that is refused."""
    first = await made.create()
    await made.settled(first)
    found = {
        "GET /servers/{id}": await made.counted("GET", f"/servers/{first}"),
        "GET /servers/detail, 1 server": await made.counted("GET", "/servers/detail?limit=1"),
        "GET /flavors/detail": await made.counted("GET", "/flavors/detail"),
        "POST /servers, refused by its schema": await made.counted("POST", "/servers", scene.BAD_SERVER, 400),
    }
    for uuid in [await made.create() for _ in range(servers_listed - 2)]:
        await made.settled(uuid)
    found["GET /servers/detail, 20 servers"] = await made.counted("GET", "/servers/detail")
    found["GET /servers, 20 servers"] = await made.counted("GET", "/servers")
    found["GET /limits"] = await made.counted("GET", "/limits")
    found["GET /os-hypervisors/detail"] = await made.counted("GET", "/os-hypervisors/detail")
    return found


async def count_life(made: Bench) -> dict[str, Counted]:
    """Of a server's making and its end, from the request to the last statement of the operation."""
    created: Counted
    deleted: Counted
    with counting(made.db) as created:
        uuid = await made.create()
        await made.settled(uuid)
    with counting(made.db) as deleted:
        await made.request("DELETE", f"/servers/{uuid}", status=204)
        await made.settled(uuid, gone=True)
    return {"create to ACTIVE, networks 'none'": created, "delete to gone": deleted}


async def count_ports(directory: Path) -> tuple[dict[str, Counted], dict[str, Calls]]:
    """Statements, and calls of Networking, in the life of a server's ports."""
    network = WatchedNetworking()
    on = [{"uuid": network.add_network("lan", project_id=PROJECT)["id"]}]
    statements: dict[str, Counted] = {}
    calls: dict[str, Calls] = {}

    @contextlib.contextmanager
    def watching(name: str) -> Iterator[None]:
        with counting(made.db) as statements[name], network.watched() as calls[name]:
            yield

    async with bench(directory, network) as made:
        await made.settled(await made.create(on))
        with watching("create to ACTIVE, one port"):
            uuid = await made.create(on)
            await made.settled(uuid)
        path = f"/servers/{uuid}/os-interface"
        with watching("attach an interface"):
            asked = {"interfaceAttachment": {"net_id": on[0]["uuid"]}}
            port = (await made.request("POST", path, asked))["interfaceAttachment"]["port_id"]
            await made.settled(uuid)
        with watching("detach an interface"):
            await made.request("DELETE", f"{path}/{port}", status=202)
            await made.settled(uuid)
        # What events set off meanwhile is not the next one's.
        await asyncio.sleep(0.3)
        with watching("delete to gone, one port"):
            await made.request("DELETE", f"/servers/{uuid}", status=204)
            await made.settled(uuid, gone=True)
        with watching("create to ACTIVE, four ports"):
            await made.settled(await made.create(on * 4))
    del statements["create to ACTIVE, four ports"]
    return statements, calls


async def count_idle(made: Bench, seconds: float) -> float:
    """Statements a second with nothing to do, the clock's included."""
    before = made.db.statements
    await asyncio.sleep(seconds)
    return (made.db.statements - before) / seconds
