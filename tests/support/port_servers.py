"""Servers with ports in unit tests: made, waited for, deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from kilonova.testing.api import Client

IMAGE = "11111111-1111-1111-1111-111111111111"


async def create(api: Client, networks: Any = "auto", *, version: str = "2.90", **more: Any) -> httpx.Response:
    server = {"name": "s", "imageRef": IMAGE, "flavorRef": "1", **more}
    if networks is not None:
        server["networks"] = networks
    return await api("POST", "/servers", {"server": server}, token="member", version=version)


async def settled(api: Client, uuid: str) -> dict[str, Any]:
    for _ in range(400):
        answer = await api("GET", f"/servers/{uuid}", version="2.90")
        server: dict[str, Any] = answer.json().get("server", {})
        if answer.status_code == 404 or (
            server["status"] in ("ACTIVE", "ERROR") and server["OS-EXT-STS:task_state"] is None
        ):
            return server
        await asyncio.sleep(0.02)
    raise AssertionError(server)


async def booted(api: Client, networks: Any = "auto", **more: Any) -> dict[str, Any]:
    answer = await create(api, networks, **more)
    assert answer.status_code == 202, answer.text
    server = await settled(api, answer.json()["server"]["id"])
    assert server["status"] == "ACTIVE", server.get("fault")
    return server


async def gone(api: Client, uuid: str) -> None:
    assert (await api("DELETE", f"/servers/{uuid}")).status_code == 204
    assert await settled(api, uuid) == {}
