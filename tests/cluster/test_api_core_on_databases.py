"""Flavors, key pairs and hosts on databases whose SQL, types and collations are not SQLite's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from kilonova.api.app import create_app
from kilonova.bus.memory import MemoryBus
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings, QuotaDefaults
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.testing.identity import PROJECT, StaticTokens
from kilonova.world import World
from tests.support import server_rows
from tests.support.databases import DatabaseServer

RSA = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDx8nkQv/zgGgB4rMYmIf+6A4l6Rr+o/6lHBQdW5aYd44bd8JttDCE/F/pNRr0lRE+PiqSPO8nD"
    "PHw0010JeMH9gYgnnFlyY3/OcJ02RhIPyyxYpv9FhY+2YiUkpwFOcLImyrxEsYXpD/0d3ac30bNH6Sw9JD9UZHYcpSxsIbECHw== me"
)


@pytest.fixture
async def api(database_server: DatabaseServer) -> AsyncIterator[Client]:
    db = Database(database_server.new_database())
    await create_all(db)
    bus = MemoryBus()
    await bus.start()
    settings = ComputeSettings(quota=QuotaDefaults(key_pairs=2))
    rt = Runtime(world=World(), db=db, bus=bus, images=StaticImages(), image_token=no_token, settings=settings)
    transport = httpx.ASGITransport(app=create_app(rt, StaticTokens()), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://compute.test:8774") as http:
        yield Client(http, rt)
    await bus.close()
    await db.close()


async def test_flavors_in_every_order_by_pages_and_filters(api: Client) -> None:
    for number, name in enumerate("dacb"):
        body = {"flavor": {"name": name, "id": name, "ram": 512 + number // 2, "vcpus": 1, "disk": number}}
        assert (await api("POST", "/flavors", body)).status_code == 200
        assert (await api("POST", "/flavors", body)).status_code == 409
    described = await api("PUT", "/flavors/a", {"flavor": {"description": "x"}}, version="2.55")
    assert described.json()["flavor"]["description"] == "x"
    for key in ("flavorid", "memory_mb", "description", "updated_at", "created_at", "vcpu_weight", "is_public"):
        for direction in ("asc", "desc"):
            seen: list[str] = []
            marker = ""
            while True:
                query = f"?limit=1&sort_key={key}&sort_dir={direction}{marker}"
                page = [flavor["id"] for flavor in (await api("GET", f"/flavors{query}")).json()["flavors"]]
                if not page:
                    break
                seen += page
                marker = f"&marker={page[-1]}"
            assert sorted(seen) == ["a", "b", "c", "d"], (key, direction)
    for query, expected in (("minDisk=2", ["b", "c"]), ("name=^[ab]$", ["a", "b"]), ("is_public=none", list("abcd"))):
        answer = await api("GET", f"/flavors?{query}", version="2.102")
        assert [flavor["id"] for flavor in answer.json()["flavors"]] == expected


async def test_specs_access_and_deletion(api: Client) -> None:
    body = {"flavor": {"name": "f", "id": "f", "ram": 1, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": False}}
    await api("POST", "/flavors", body)
    assert (await api("POST", "/flavors/f/os-extra_specs", {"extra_specs": {"a": "b"}})).status_code == 200
    assert (await api("GET", "/flavors/f/os-extra_specs")).json() == {"extra_specs": {"a": "b"}}
    added = await api("POST", "/flavors/f/action", {"addTenantAccess": {"tenant": PROJECT}})
    assert added.json()["flavor_access"] == [{"flavor_id": "f", "tenant_id": PROJECT}]
    assert (await api("GET", "/flavors/f", token="member")).status_code == 200
    assert (await api("DELETE", "/flavors/f")).status_code == 202
    assert (await api("GET", "/flavors/f", token="member")).status_code == 404


async def test_key_pairs_up_to_the_quota(api: Client) -> None:
    async def put(name: str) -> int:
        body = {"keypair": {"name": name, "public_key": RSA}}
        return (await api("POST", "/os-keypairs", body, token="member")).status_code

    assert [await put("a"), await put("a"), await put("b"), await put("c")] == [200, 409, 200, 403]
    listed = (await api("GET", "/os-keypairs?limit=1&marker=a", token="member", version="2.35")).json()
    assert [item["keypair"]["name"] for item in listed["keypairs"]] == ["b"]
    assert (await api("GET", "/limits", token="member")).status_code == 200


async def test_services_by_the_databases_clock(api: Client) -> None:
    await server_rows.add_service(api.rt.db)
    services = (await api("GET", "/os-services", version="2.53")).json()["services"]
    assert [service["state"] for service in services] == ["up"]
    path = f"/os-services/{services[0]['id']}"
    shown = (await api("PUT", path, {"status": "disabled", "forced_down": True}, version="2.53")).json()["service"]
    assert (shown["status"], shown["state"]) == ("disabled", "down")
    for where in ("os-availability-zone/detail", "os-hypervisors/detail", "os-hypervisors/statistics"):
        assert (await api("GET", f"/{where}")).status_code == 200
    assert (await api("DELETE", path, version="2.53")).status_code == 204
