"""The life of servers through the API, on a whole cloud with a simulated hypervisor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kilonova.api.app import create_app
from kilonova.testing.api import Client
from kilonova.testing.cloud import make_cloud
from kilonova.testing.identity import StaticTokens
from tests.support import server_rows as rows


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Client]:
    async with make_cloud(tmp_path, synchronous="OFF") as made:
        made.images.add(rows.IMAGE)
        await rows.add_flavor(made.rt.db)
        transport = httpx.ASGITransport(app=create_app(made.rt, StaticTokens()), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://compute.test:8774") as http:
            yield Client(http, made.rt)


async def until(api: Client, server_id: str, status: str) -> dict[str, Any]:
    """The server once it has that status and nothing is under way."""
    for _ in range(2000):
        answer = await api("GET", f"/servers/{server_id}", version="2.104")
        server: dict[str, Any] = answer.json()["server"]
        if server["status"] == status and server["OS-EXT-STS:task_state"] is None:
            return server
        assert server["status"] != "ERROR", server
        await asyncio.sleep(0.01)
    raise AssertionError(f"{server_id} is {server['status']} instead of {status}")


async def act(api: Client, server_id: str, key: str, value: Any = None) -> Any:
    return await api("POST", f"/servers/{server_id}/action", {key: value}, token="member", version="2.104")


async def test_a_server_lives_through_all_actions_and_goes(cloud: Client) -> None:
    wanted = {"server": {"name": "vm", "imageRef": rows.IMAGE, "flavorRef": "1", "networks": "none"}}
    made = await cloud("POST", "/servers", wanted, token="member", version="2.104")
    server_id = made.json()["server"]["id"]
    server = await until(cloud, server_id, "ACTIVE")
    assert server["OS-EXT-SRV-ATTR:host"] == "host-1"
    assert server["host_status"] == "UP"
    assert server["OS-SRV-USG:launched_at"] is not None
    done = ["create"]
    for key, value, status, name in (
        ("os-stop", None, "SHUTOFF", "stop"),
        ("os-start", None, "ACTIVE", "start"),
        ("reboot", {"type": "SOFT"}, "ACTIVE", "reboot"),
        ("reboot", {"type": "HARD"}, "ACTIVE", "reboot"),
        ("pause", None, "PAUSED", "pause"),
        ("unpause", None, "ACTIVE", "unpause"),
        ("suspend", None, "SUSPENDED", "suspend"),
        ("resume", None, "ACTIVE", "resume"),
        ("rebuild", {"imageRef": rows.IMAGE}, "ACTIVE", "rebuild"),
    ):
        answer = await act(cloud, server_id, key, value)
        assert answer.status_code == 202, answer.text
        await until(cloud, server_id, status)
        done.insert(0, name)
    console = await act(cloud, server_id, "os-getConsoleOutput", {"length": 10})
    assert console.status_code == 200
    assert isinstance(console.json()["output"], str)

    path = f"/servers/{server_id}/os-instance-actions"
    actions = (await cloud("GET", path, token="member", version="2.84")).json()["instanceActions"]
    assert [action["action"] for action in actions] == done
    assert {action["message"] for action in actions} == {None}
    shown = (await cloud("GET", f"{path}/{actions[-1]['request_id']}", version="2.84")).json()["instanceAction"]
    assert {event["result"] for event in shown["events"]} == {"Success"}
    assert {event["host"] for event in shown["events"]} >= {"host-1"}

    assert (await cloud("DELETE", f"/servers/{server_id}", token="member")).status_code == 204
    for _ in range(2000):
        if (await cloud("GET", f"/servers/{server_id}", token="member")).status_code == 404:
            break
        await asyncio.sleep(0.01)
    (gone,) = (await cloud("GET", "/servers/detail?deleted=true")).json()["servers"]
    assert (gone["id"], gone["status"]) == (server_id, "DELETED")
    assert (await cloud("GET", path, token="member", version="2.21")).status_code == 200
