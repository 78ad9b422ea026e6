"""GET /flavors/{id}."""

from __future__ import annotations

from typing import Any

from kilonova.api.flavors.view import shown
from kilonova.api.requests import Request
from kilonova.compute import flavors
from kilonova.db.engine import Tx
from kilonova.db.flavors import Flavor


async def show(request: Request) -> dict[str, Any]:
    async def work(tx: Tx) -> Flavor:
        return await flavors.get(tx, request.context, request.params["id"])

    return shown(request, await request.runtime.db.read(work))
