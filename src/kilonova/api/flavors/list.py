"""GET /flavors and /flavors/detail."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import View
from kilonova.api.flavors.view import BASIC, detail_view
from kilonova.api.requests import Request
from kilonova.api.types import MAX_INT, loose_boolean
from kilonova.compute.flavors import visible_to
from kilonova.db import flavors as rows
from kilonova.db import patterns
from kilonova.db.engine import Tx
from kilonova.db.flavors import Filter, Flavor, MarkerNotFound
from kilonova.errors import Invalid


async def brief(request: Request) -> dict[str, Any]:
    return await _list(request, BASIC, "flavors")


async def detail(request: Request) -> dict[str, Any]:
    return await _list(request, detail_view(request), "flavors/detail")


async def _list(request: Request, view: View, collection: str) -> dict[str, Any]:
    flavors = await _find(request)
    render = view.at(request.version)
    links = request.linker("flavors")
    answer: dict[str, Any] = {"flavors": [render(flavor, links) for flavor in flavors]}
    next_links = request.next_links(collection, len(flavors), flavors[-1].flavorid if flavors else None)
    if next_links:
        answer["flavors_links"] = next_links
    return answer


async def _find(request: Request) -> list[Flavor]:
    context, query = request.context, request.query
    wanted = Filter(
        project_id=context.project_id,
        visible_to=visible_to(context),
        public=_public(query.last("is_public")) if context.is_admin else True,
        enabled_only=not context.is_admin,
        min_memory_mb=_whole(request, "minRam"),
        min_root_gb=_whole(request, "minDisk"),
        name=query.last("name"),
    )
    if wanted.name is not None and not patterns.is_valid(wanted.name):
        raise Invalid(f"Invalid name filter [{wanted.name[:100]}]: it is no regular expression")
    marker = query.last("marker")

    async def work(tx: Tx) -> list[Flavor]:
        return await rows.find(
            tx,
            wanted,
            sort_key=query.last("sort_key") or "flavorid",
            descending=query.last("sort_dir") == "desc",
            limit=request.page_limit(),
            marker=marker,
        )

    try:
        return await request.runtime.db.read(work)
    except MarkerNotFound:
        raise Invalid(f"marker [{marker}] not found") from None


def _public(text: str | None) -> bool | None:
    """Which flavors an administrator wants: public ones unless told otherwise, `none` for all."""
    if text is None:
        return True
    if text.lower() == "none":
        return None
    value = loose_boolean(text)
    if value is None:
        raise Invalid(f"Invalid is_public filter [{text}]")
    return value


def _whole(request: Request, name: str) -> int | None:
    text = request.query.last(name)
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        raise Invalid(f"Invalid {name} filter [{text[:100]}]") from None
    return max(-MAX_INT, min(MAX_INT, value))
