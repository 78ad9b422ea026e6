"""`/os-floating-ips`."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import Field, Object, Schema
from kilonova.api.requests import Request
from kilonova.compute import network_proxies
from kilonova.networking import Document

CREATE = Schema(Object(Field("pool", {"type": ["string", "null"]}), open_until="2.104", nullable=True))


async def index(request: Request) -> Any:
    found = await network_proxies.floating_ips(request.runtime, request.context)
    return {"floating_ips": [_view(floating) for floating in found]}


async def show(request: Request) -> Any:
    found = await network_proxies.floating_ip(request.runtime, request.context, request.params["id"])
    return {"floating_ip": _view(found)}


async def create(request: Request) -> Any:
    pool = (request.body or {}).get("pool")
    return {"floating_ip": _view(await network_proxies.allocate(request.runtime, request.context, pool))}


async def delete(request: Request) -> None:
    await network_proxies.release(request.runtime, request.context, request.params["id"])


def _view(floating: Document) -> dict[str, Any]:
    return {
        "fixed_ip": floating.get("fixed_ip_address"),
        "id": floating["id"],
        "instance_id": floating["instance_id"],
        "ip": floating["floating_ip_address"],
        "pool": floating["pool"],
    }
