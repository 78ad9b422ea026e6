"""A flavor's extra specs. Values are kept as strings; from 2.86 known names take known values only."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.flavors.known_specs import check
from kilonova.api.requests import Request
from kilonova.compute import flavors
from kilonova.db.engine import Tx
from kilonova.errors import Invalid, NotFound


async def index(request: Request) -> dict[str, Any]:
    return {"extra_specs": await _read(request)}


async def show(request: Request) -> dict[str, Any]:
    name = request.params["id"]
    specs = await _read(request)
    if name not in specs:
        raise _no_such(request)
    return {name: specs[name]}


async def create(request: Request) -> Any:
    await _merge(request, request.body["extra_specs"])
    return request.body


async def update(request: Request) -> Any:
    if request.params["id"] not in request.body:
        raise Invalid("Request body and URI mismatch")
    await _merge(request, request.body)
    return request.body


async def delete(request: Request) -> None:
    def without(specs: dict[str, str]) -> dict[str, str]:
        if specs.pop(request.params["id"], None) is None:
            raise _no_such(request)
        return specs

    await flavors.change_extra_specs(request.runtime, request.context, request.params["flavor_id"], without)


async def _read(request: Request) -> dict[str, str]:
    async def work(tx: Tx) -> dict[str, str]:
        return (await flavors.get(tx, request.context, request.params["flavor_id"])).extra_specs

    return await request.runtime.db.read(work)


async def _merge(request: Request, given: dict[str, Any]) -> None:
    specs = {}
    for name, value in given.items():
        text = str(value)
        if len(text) > 255:
            raise Invalid(f"The value of extra spec {name!r} has {len(text)} characters; at most 255 are accepted.")
        if request.version >= versions.EXTRA_SPECS_VALIDATED:
            check(name, text)
        specs[name] = text
    await flavors.change_extra_specs(
        request.runtime, request.context, request.params["flavor_id"], lambda old: old | specs
    )


def _no_such(request: Request) -> NotFound:
    return NotFound(f"Flavor {request.params['flavor_id']} has no extra specs with key {request.params['id']}.")
