"""Whatever is sent to any operation at any version: never a failure of ours, and nothing changed by what is refused.

Bodies and queries are drawn from each operation's own schema at the version, and spoilt here and there, so
that most of a request is right and one thing in it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from kilonova.api.app import create_app
from kilonova.api.policy import Policy
from kilonova.api.routes import ROUTES
from kilonova.api.routing import Action, Route
from kilonova.api.versions import LEGACY, MAX, Version
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Answer, Message
from kilonova.db.engine import Database, Tx
from kilonova.db.schema import create_all
from kilonova.db.tables import (
    aggregate_hosts,
    aggregate_metadata,
    aggregates,
    compute_nodes,
    instance_groups,
    instance_types,
    key_pairs,
    metadata,
    services,
)
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings, QuotaDefaults
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.testing.identity import PROJECT, StaticTokens
from kilonova.world import World
from tests.support import server_rows

EXAMPLES = int(os.environ.get("KILONOVA_EXAMPLES", "500"))
SEED = int(os.environ.get("KILONOVA_SEED", "2026"))

UUID = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
SERVICE = "7f12e505-3a14-4639-b918-409c6e6e9077"
NODE = "69c85da7-7655-4834-abd9-e9f710ac07cf"
GROUP = "5bbcc3c4-1da2-4437-a48a-66f15b1b13f9"
NOW = server_rows.MOMENT

WORDS = st.sampled_from(
    ["", " ", "x", " x ", "1", "0", "-1", "none", "auto", "true", "no", "ssh", "nova-compute", "host-1", "enable", UUID,
     "force-down", "hw:cpu_policy", "dedicated", "k1", "m1.tiny", "a/b", "a:b", "é\u0000", "\U0001f600", "x" * 256,
     "x" * 300, "9" * 30, "%", "_", "1e999", "[", "(a+)+$", "2026-01-01T00:00:00Z", "YQ==", "1.2.3.4", PROJECT, SERVICE,
     NODE],
)  # fmt: skip
TEXT = WORDS | st.text(max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 2**63, 2**64, 2**70, -(2**63), 1.0, 0.5, 1e300])
    | TEXT
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


def spoilt(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*[strategy] * 9, ANYTHING)


def fitting(schema: Any) -> st.SearchStrategy[Any]:
    """Values that a schema mostly takes."""
    if not isinstance(schema, dict) or not schema:
        return ANYTHING
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for several in ("oneOf", "anyOf", "allOf"):
        if several in schema:
            return st.one_of(*(fitting({"type": schema.get("type", "string")} | part) for part in schema[several]))
    types = schema.get("type", "string")
    if isinstance(types, list):
        return st.one_of(*(fitting(schema | {"type": name}) for name in types))
    if types == "object":
        if "patternProperties" in schema:
            return st.dictionaries(TEXT, st.one_of(*map(fitting, schema["patternProperties"].values())), max_size=3)
        required = set(schema.get("required", ()))
        properties = {name: spoilt(fitting(part)) for name, part in schema.get("properties", {}).items()}
        return st.fixed_dictionaries(
            {name: part for name, part in properties.items() if name in required},
            optional={name: part for name, part in properties.items() if name not in required},
        )
    if types == "array":
        return st.lists(spoilt(fitting(schema.get("items", {}))), max_size=2)
    if types == "string":
        return st.sampled_from([UUID, SERVICE]) if schema.get("format") == "uuid" else TEXT
    if types in ("integer", "number"):
        return st.sampled_from([0, 1, 2, 512, 2**31 - 1]) | st.integers(-5, 5)
    return {"boolean": st.booleans(), "null": st.none()}.get(types, ANYTHING)


async def _answer(message: Message) -> Answer:
    return Answer(data={"output": "login: ", "host": "192.0.2.9", "port": 5900, "certificate": "-----"})


class Stage:
    """The API over a database that is put back after each request that changed it."""

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = directory
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.db = Database(f"sqlite:///{self.directory}/compute.sqlite", synchronous="OFF")
        await create_all(self.db)
        images = StaticImages()
        images.add(server_rows.IMAGE)
        limits = ComputeSettings(quota=QuotaDefaults(key_pairs=3, instances=6))
        bus = MemoryBus()
        await bus.start()
        # Without a role that answers, each question to it would take its whole time-out.
        for address in ("agent.host-1", "cert"):
            await bus.listen(address, _answer)
        self.bus = bus
        rt = Runtime(world=World(7), db=self.db, bus=bus, images=images, image_token=no_token, settings=limits)
        app = create_app(rt, StaticTokens(), policy=Policy())
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://compute.test")
        self.servers = [
            await server_rows.add(
                self.db, vm_state=state, task_state=task, host="host-1", tags=("t",), metadata={"k": "v"}
            )
            for state, task in (("active", None), ("stopped", None), ("error", None), ("building", "spawning"))
        ]
        await self.db.write(self._seed)
        self.rows, self.sums = await self.db.read(self._look)

    async def _seed(self, tx: Tx) -> None:
        await tx.execute(sa.delete(services))
        flavor = {"vcpus": 1, "memory_mb": 512, "root_gb": 1, "extra_specs": {"k1": "v"}, "created_at": NOW}
        for number, public in ((1, True), (2, False)):
            await tx.execute(
                sa.insert(instance_types).values(
                    flavor | {"flavorid": str(number), "name": f"m{number}", "is_public": public}
                )
            )
        for name in ("k1", "k2"):
            await tx.execute(
                sa.insert(key_pairs).values(
                    user_id="member", name=name, type="ssh", fingerprint="f", public_key="p", created_at=NOW
                )
            )
        await tx.execute(
            sa.insert(services).values(
                uuid=SERVICE, host="host-1", binary="nova-compute", last_seen=4e9, created_at=NOW
            )
        )
        await tx.execute(
            sa.insert(compute_nodes).values(
                uuid=NODE,
                service_id=1,
                host="host-1",
                hypervisor_hostname="host-1",
                hypervisor_type="sim",
                hypervisor_version=1,
                vcpus=8,
                memory_mb=8192,
                local_gb=100,
                vcpus_max=8,
                memory_mb_max=8192,
                local_gb_max=100,
                cpu_info={},
                traits=[],
                created_at=NOW,
            )
        )

        await tx.execute(sa.insert(aggregates).values(id=1, uuid=NODE, name="a1", created_at=NOW))
        await tx.execute(sa.insert(aggregate_hosts).values(aggregate_id=1, host="host-1"))
        await tx.execute(sa.insert(aggregate_metadata).values(aggregate_id=1, key="k1", value="1"))
        group = {"project_id": PROJECT, "user_id": "member", "name": "g1", "policy": "anti-affinity", "rules": {}}
        await tx.execute(sa.insert(instance_groups).values(group | {"uuid": GROUP, "created_at": NOW}))

    async def _look(self, tx: Tx) -> tuple[dict[str, list[Any]], dict[str, str]]:
        rows, sums = {}, {}
        for name, table in metadata.tables.items():
            found = [tuple(row) for row in await tx.execute(sa.text(f'SELECT * FROM "{table.name}" ORDER BY 1, 2'))]
            rows[name] = found
            sums[name] = hashlib.sha256(repr(found).encode()).hexdigest()
        return rows, sums

    async def _put_back(self, tx: Tx) -> None:
        for name, table in metadata.tables.items():
            await tx.exec_driver_sql(f'DELETE FROM "{table.name}"')
            for row in self.rows[name]:
                marks = ", ".join("?" * len(row))
                await tx.exec_driver_sql(f'INSERT INTO "{table.name}" VALUES ({marks})', row)

    def send(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, list[str]]:
        """The answer, and the tables that it changed (and that are as they were again)."""
        return self.loop.run_until_complete(self._send(method, url, body, headers))

    async def _send(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> tuple[httpx.Response, list[str]]:
        answer = await self.http.request(method, url, content=body, headers=headers)
        _, sums = await self.db.read(self._look)
        changed = [name for name in sums if sums[name] != self.sums[name]]
        if changed:
            await self.db.write(self._put_back)
        return answer, changed

    def close(self) -> None:
        async def end() -> None:
            await self.http.aclose()
            await self.bus.close()
            await self.db.close()

        self.loop.run_until_complete(end())
        self.loop.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with contextlib.closing(Stage(tmp_path_factory.mktemp("property"))) as opened:
        yield opened


IDS = {
    "/flavors": ["1", "2", "nope", "k1"],
    "/os-keypairs": ["k1", "nope"],
    "/os-hypervisors": [NODE, "1", "host", "nope"],
    "/os-services": [SERVICE, "enable", "disable", "disable-log-reason", "force-down", "1", "nope"],
    "/os-aggregates": ["1", "2", "nope"],
    "/os-server-groups": [GROUP, UUID, "nope"],
    "/os-quota": [PROJECT, "default", "nope"],
    "/versions": ["v2.1", "nope"],
}
NAMES = {"key": ["k", "nope"], "tag": ["t", "nope"], "network": ["private", "nope"]}


@st.composite
def requests(draw: st.DrawFn, stage: Stage) -> tuple[str, str, bytes, dict[str, str]]:
    operation: Route | Action = draw(st.sampled_from(ROUTES))
    minor = draw(st.integers(operation.first.minor, operation.last.minor) | st.sampled_from([0, 1, MAX.minor]))
    version = Version(2, minor)
    path = operation.path
    while "{" in path:
        name = path[path.index("{") + 1 : path.index("}")]
        known = NAMES.get(name) or next((ids for start, ids in IDS.items() if path.startswith(start)), stage.servers)
        if path.startswith("/servers/{"):
            known = stage.servers
        value = draw(st.sampled_from(known) | WORDS)
        path = path.replace("{" + name + "}", quote(value, safe="") or "x", 1)
    if operation.query is not None:
        known = [*operation.query.plain(version)["properties"], "foo"]
        pairs = draw(st.lists(st.tuples(st.sampled_from(known), TEXT), max_size=3))
        path += "?" + urlencode(pairs, errors="replace") if pairs else ""
    method = "POST" if isinstance(operation, Action) else operation.method
    body = b""
    if operation.body is not None:
        value = draw(spoilt(fitting(operation.body.plain(version))))
        with contextlib.suppress(UnicodeEncodeError, OverflowError):
            body = msgspec.json.encode(value)
        if draw(st.integers(0, 30)) == 0:
            body = draw(st.binary(max_size=30))
    token = draw(st.sampled_from(["admin", "admin", "admin", "member", "reader", "other"]))
    prefix = f"/v2/{PROJECT}" if version == LEGACY else "/v2.1"
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": f"compute {version}"}
    return method, prefix + path, body, headers


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    database=None,
)
@seed(SEED)
@given(data=st.data())
def test_nothing_fails_and_what_is_refused_changes_nothing(stage: Stage, data: st.DataObject) -> None:
    method, url, body, headers = data.draw(requests(stage))
    answer, changed = stage.send(method, url, body, headers)
    assert answer.status_code < 500 or answer.status_code == 501, answer.text
    if answer.status_code >= 400:
        assert changed == []
        (error,) = answer.json().values()
        assert error["code"] == answer.status_code
        assert error["message"]
    if method == "GET":
        assert changed == []
