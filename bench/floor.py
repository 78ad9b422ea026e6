"""The floor: what the same answers cost with nothing but the framework.

Starlette on uvicorn, one statement through the same database layer, msgspec. No token, policy, versions, validation or
view; a row becomes a copy of a real answer's item with its own values put in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.web import serve
from kilonova.db.engine import Database, Tx
from kilonova.db.server_list import VIEW_COLUMNS
from kilonova.db.tables import compute_nodes, instance_types, instances, quota_usages
from kilonova.world import World

_COLUMNS = [column for column in VIEW_COLUMNS if not column.name.startswith("service_")]
_PLACE = {column.name: number for number, column in enumerate(_COLUMNS)}
_ONE = sa.select(*_COLUMNS).where(instances.c.uuid == sa.bindparam("my_uuid"))
_MANY = sa.select(*_COLUMNS).where(instances.c.deleted == 0).order_by(instances.c.id).limit(sa.bindparam("my_limit"))
_NAMES = (
    sa.select(instances.c.uuid, instances.c.display_name)
    .where(instances.c.deleted == 0)
    .order_by(instances.c.id)
    .limit(sa.bindparam("my_limit"))
)
_FLAVORS = sa.select(instance_types).order_by(instance_types.c.flavorid)
_USAGE = sa.select(quota_usages)
_NODES = sa.select(compute_nodes).order_by(compute_nodes.c.id)
_INSERT = sa.insert(instances)

Answer = tuple[int, Any]


class Floor:
    """`templates`: for each case the real answer's item, to be copied."""

    def __init__(self, db: Database, templates: dict[str, Any]) -> None:
        self.db = db
        self._world = World()
        self.server = templates.get("server", {})
        self.entry = templates.get("entry", {})
        self.flavor = templates.get("flavor", {})
        self.limits = templates.get("limits", {})
        self.hypervisor = templates.get("hypervisor", {})
        self.accepted = templates.get("accepted", {})
        self.refused = templates.get("refused", {})

    async def rows(self, query: Any, **parameters: Any) -> Any:
        return await self.db.read(lambda tx: self._rows(tx, query, parameters))

    async def _rows(self, tx: Tx, query: Any, parameters: dict[str, Any]) -> Any:
        return (await tx.execute(query, parameters)).all()

    def _links(self, uuid: str) -> list[dict[str, str]]:
        return [
            {"rel": "self", "href": "http://127.0.0.1:18400/v2.1/servers/" + uuid},
            {"rel": "bookmark", "href": "http://127.0.0.1:18400/servers/" + uuid},
        ]

    def _server(self, row: Any) -> dict[str, Any]:
        place = _PLACE
        return {
            **self.server,
            "id": row[place["uuid"]],
            "name": row[place["display_name"]],
            "tenant_id": row[place["project_id"]],
            "user_id": row[place["user_id"]],
            "metadata": msgspec.Raw(row[place["metadata"]].encode()),
            "addresses": msgspec.Raw(row[place["addresses"]].encode()),
            "created": row[place["created_at"]],
            "updated": row[place["updated_at"]],
            "OS-EXT-STS:vm_state": row[place["vm_state"]],
            "OS-EXT-STS:task_state": row[place["task_state"]],
            "OS-EXT-SRV-ATTR:host": row[place["host"]],
            "key_name": row[place["key_name"]],
            "links": self._links(row[place["uuid"]]),
        }

    async def show(self, request: Request) -> Answer:
        (row,) = await self.rows(_ONE, my_uuid=request.path_params["id"])
        return 200, {"server": self._server(row)}

    async def detail(self, request: Request) -> Answer:
        rows = await self.rows(_MANY, my_limit=int(request.query_params["limit"]))
        return 200, {"servers": [self._server(row) for row in rows]}

    async def index(self, request: Request) -> Answer:
        rows = await self.rows(_NAMES, my_limit=int(request.query_params["limit"]))
        return 200, {"servers": [{"id": row[0], "name": row[1], "links": self._links(row[0])} for row in rows]}

    async def flavors(self, request: Request) -> Answer:
        rows = await self.rows(_FLAVORS)
        items = [{**self.flavor, "id": row[1], "name": row[2], "extra_specs": row[12]} for row in rows]
        return 200, {"flavors": items}

    async def show_limits(self, request: Request) -> Answer:
        rows = await self.rows(_USAGE)
        used = rows[0]._mapping
        return 200, {"limits": {**self.limits, "absolute": {**self.limits["absolute"], "used": used["instances"]}}}

    async def hypervisors(self, request: Request) -> Answer:
        rows = await self.rows(_NODES)
        items = [{**self.hypervisor, "hypervisor_hostname": row.hypervisor_hostname} for row in rows]
        return 200, {"hypervisors": items}

    async def create(self, request: Request) -> Answer:
        asked = msgspec.json.decode(await request.body())["server"]
        now = self._world.now()
        values = {
            "uuid": self._world.uuid(), "project_id": "p", "user_id": "u", "display_name": asked["name"],
            "hostname": asked["name"], "reservation_id": "r", "launch_index": 0, "image_ref": asked["imageRef"],
            "flavorid": asked["flavorRef"], "flavor": {}, "vcpus": 1, "memory_mb": 512, "root_gb": 1,
            "vm_state": "active", "metadata": asked["metadata"], "security_groups": [], "addresses": {},
            "scheduler_hints": {}, "created_at": now, "updated_at": now, "deleted": 1,
        }  # fmt: skip

        async def work(tx: Tx) -> None:
            await tx.execute(_INSERT, values)

        await self.db.write(work)
        answer = {**self.accepted["server"], "id": values["uuid"], "links": self._links(str(values["uuid"]))}
        return 202, {"server": answer}

    async def bad(self, request: Request) -> Answer:
        msgspec.json.decode(await request.body())
        return 400, self.refused


def _answering(handler: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Response]]:
    encode = msgspec.json.Encoder().encode

    async def answer(request: Request) -> Response:
        status, content = await handler(request)
        return Response(encode(content), status, media_type="application/json")

    return answer


def app(floor: Floor) -> Starlette:
    get = {
        "/servers/detail": floor.detail,
        "/servers/{id}": floor.show,
        "/servers": floor.index,
        "/flavors/detail": floor.flavors,
        "/limits": floor.show_limits,
        "/os-hypervisors/detail": floor.hypervisors,
    }
    post = {"/servers": floor.create, "/bad": floor.bad}
    return Starlette(
        routes=[
            *(Route(f"/v2.1{path}", _answering(handler)) for path, handler in get.items()),
            *(Route(f"/v2.1{path}", _answering(handler), methods=["POST"]) for path, handler in post.items()),
        ]
    )


async def run(database: Path, templates: Path, port: int) -> None:
    db = Database(f"sqlite:///{database}")
    await serve(app(Floor(db, json.loads(templates.read_text()))), port)  # noqa: ASYNC240  # before it serves
    await db.close()


def main() -> None:
    database, templates, port = sys.argv[1:]
    uvloop.run(run(Path(database), Path(templates), int(port)))


if __name__ == "__main__":
    main()
