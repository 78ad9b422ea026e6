"""Lists, views and tags of servers on databases whose SQL, types and collations are not SQLite's."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from kilonova.api.app import create_app
from kilonova.bus.memory import MemoryBus
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.testing.identity import StaticTokens
from kilonova.world import World
from tests.support import server_rows as rows
from tests.support.databases import DatabaseServer


@pytest.fixture
async def api(database_server: DatabaseServer) -> AsyncIterator[Client]:
    db = Database(database_server.new_database())
    await create_all(db)
    bus = MemoryBus()
    await bus.start()
    rt = Runtime(world=World(), db=db, bus=bus, images=StaticImages(), image_token=no_token, settings=ComputeSettings())
    transport = httpx.ASGITransport(app=create_app(rt, StaticTokens()), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://compute.test:8774") as http:
        yield Client(http, rt)
    await bus.close()
    await db.close()


async def names(api: Client, query: str) -> list[str]:
    answer = await api("GET", f"/servers?{query}", version="2.104")
    assert answer.status_code == 200, answer.text
    return [server["name"] for server in answer.json()["servers"]]


async def test_filters_order_and_views(api: Client) -> None:
    await rows.add_service(api.rt.db)
    differences: tuple[dict[str, Any], ...] = (
        {"key_name": "mykey", "locked": True, "tags": ("a",), "launched_at": None},
        {"vm_state": "stopped", "power_state": 4, "addresses": rows.ADDRESSES, "tags": ("a", "b")},
        {"task_state": "rebooting", "disk_config": "AUTO", "deleted": 0},
    )
    for number, changes in enumerate(differences):
        await rows.add(
            api.rt.db, f"vm-{number}", **{"created_at": rows.MOMENT + dt.timedelta(minutes=number)} | changes
        )
    for query, expected in (
        ("", ["vm-2", "vm-1", "vm-0"]),
        ("name=^vm-[01]$", ["vm-1", "vm-0"]),
        # MariaDB's collation takes no notice of case, as always with this database.
        ("name=VM-1", ["vm-1"] if api.rt.db.url.get_backend_name() == "mysql" else []),
        ("status=SHUTOFF", ["vm-1"]),
        ("power_state=4", ["vm-1"]),
        ("created_at=2026-01-02 03:05", ["vm-1"]),
        ("auto_disk_config=1", ["vm-2"]),
        ("locked=true", ["vm-0"]),
        ("ip=192", ["vm-1"]),
        ("tags=a,b", ["vm-1"]),
        ("not-tags=a", ["vm-2"]),
        ("changes-since=2026-01-02T03:04:00Z", ["vm-2", "vm-1", "vm-0"]),
        ("sort_key=key_name&sort_dir=asc&limit=2", ["vm-1", "vm-2"]),
        ("sort_key=launched_at&sort_key=display_name&sort_dir=asc", ["vm-0", "vm-1", "vm-2"]),
        ("sort_key=locked&sort_dir=desc&limit=1", ["vm-0"]),
    ):
        assert await names(api, query) == expected, query
    detail = (await api("GET", "/servers/detail", version="2.104")).json()["servers"]
    assert [server["created"] for server in detail] == [f"2026-01-02T03:0{minute}:05Z" for minute in (6, 5, 4)]
    assert detail[1]["addresses"] == rows.ADDRESSES
    assert detail[1]["OS-SRV-USG:launched_at"] == "2026-01-02T03:04:05.678900"
    assert {server["host_status"] for server in detail} == {"UP"}
    assert detail[0]["flavor"]["original_name"] == "m1.tiny"


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_are_whole_where_values_are_missing(api: Client, direction: str) -> None:
    for number, key in enumerate([None, "a", None, "b", "a", None]):
        await rows.add(api.rt.db, f"vm-{number}", key_name=key)
    seen: list[str] = []
    marker = ""
    for _ in range(4):
        query = f"limit=2&sort_key=key_name&sort_dir={direction}{marker}"
        page = (await api("GET", f"/servers?{query}", version="2.104")).json()["servers"]
        if not page:
            break
        seen += [server["name"] for server in page]
        marker = f"&marker={page[-1]['id']}"
    assert sorted(seen) == [f"vm-{number}" for number in range(6)]


async def test_tags_and_metadata_tell_capitals_and_small_letters_apart(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    path = f"/servers/{server_id}/tags"
    assert (await api("PUT", f"{path}/one", version="2.26")).status_code == 201
    assert (await api("PUT", f"{path}/One", version="2.26")).status_code == 201
    assert sorted((await api("GET", path, version="2.26")).json()["tags"]) == ["One", "one"]
    assert (await api("DELETE", f"{path}/one", version="2.26")).status_code == 204
    assert (await api("GET", path, version="2.26")).json()["tags"] == ["One"]
    both = {"metadata": {"k": "1", "K": "2"}}
    assert (await api("POST", f"/servers/{server_id}/metadata", both)).json() == both
