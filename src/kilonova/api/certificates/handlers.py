"""Certificates, which only the API before microversions has."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import OPEN_QUERY, Schema
from kilonova.api.requests import Request
from kilonova.api.routing import Action, Route, route
from kilonova.api.unbuilt import gone
from kilonova.compute import certificates
from kilonova.errors import NotImplementedHere

_ANYTHING = Schema({})
_RULE = "os_compute_api:os-certificates"


async def create(request: Request) -> Any:
    if not request.legacy:
        await gone(request)
    request.authorize(f"{_RULE}:create")
    made = await certificates.create(request.runtime, request.context)
    return {"certificate": {"private_key": made.private_key, "data": made.certificate}}


async def show(request: Request) -> Any:
    if not request.legacy:
        await gone(request)
    request.authorize(f"{_RULE}:show")
    if request.params["id"] != "root":
        raise NotImplementedHere(
            f"Certificate {request.params['id']} cannot be shown: only 'root', the authority's own, can."
        )
    return {"certificate": {"private_key": None, "data": await certificates.root(request.runtime)}}


ROUTES: tuple[Route | Action, ...] = (
    route("POST", "/os-certificates", create, "certificates:create", body=_ANYTHING),
    route("GET", "/os-certificates/{id}", show, "certificates:show", query=OPEN_QUERY),
)
