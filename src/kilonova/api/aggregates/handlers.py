"""Aggregates: listed, shown, made, changed, deleted; hosts put in and taken out; images fetched ahead."""

from __future__ import annotations

from typing import Any

from kilonova.api.aggregates.view import AGGREGATE, NEW
from kilonova.api.requests import Request
from kilonova.api.validation import row_id
from kilonova.compute import aggregates
from kilonova.db import aggregates as rows
from kilonova.db.aggregates import Aggregate
from kilonova.errors import Invalid


def _shown(request: Request, aggregate: Aggregate) -> dict[str, Any]:
    return {"aggregate": AGGREGATE.at(request.version)(aggregate, None)}


async def index(request: Request) -> dict[str, Any]:
    found = await request.runtime.db.read(rows.find)
    render = AGGREGATE.at(request.version)
    return {"aggregates": [render(aggregate, None) for aggregate in found]}


async def show(request: Request) -> dict[str, Any]:
    return _shown(request, await aggregates.get(request.runtime, _id(request)))


async def create(request: Request) -> dict[str, Any]:
    fields = request.body["aggregate"]
    zone = fields.get("availability_zone")
    made = await aggregates.create(request.runtime, fields["name"].strip(), zone.strip() if zone else None)
    return {"aggregate": NEW.at(request.version)(made, None)}


async def update(request: Request) -> dict[str, Any]:
    fields = request.body["aggregate"]
    name = fields["name"].strip() if "name" in fields else None
    metadata = {rows.ZONE: fields["availability_zone"]} if "availability_zone" in fields else {}
    return _shown(request, await aggregates.update(request.runtime, _id(request), name=name, metadata=metadata))


async def delete(request: Request) -> None:
    await aggregates.delete(request.runtime, _id(request))


async def add_host(request: Request) -> dict[str, Any]:
    host = request.body["add_host"]["host"]
    return _shown(request, await aggregates.add_host(request.runtime, _id(request), host))


async def remove_host(request: Request) -> dict[str, Any]:
    host = request.body["remove_host"]["host"]
    return _shown(request, await aggregates.remove_host(request.runtime, _id(request), host))


async def set_metadata(request: Request) -> dict[str, Any]:
    metadata = request.body["set_metadata"]["metadata"]
    return _shown(request, await aggregates.update(request.runtime, _id(request), metadata=metadata))


async def images(request: Request) -> None:
    aggregate_id = _id(request)
    wanted = [image["id"] for image in request.body["cache"]]
    if len(set(wanted)) != len(wanted):
        raise Invalid("Duplicate images in request")
    await aggregates.cache_images(request.runtime, request.context, aggregate_id, wanted)


def _id(request: Request) -> int:
    return row_id(request.params["id"])
