"""Key pairs of the caller; from 2.10 an administrator may name another user."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.keypairs.view import CREATED, IN_LIST, SHOWN
from kilonova.api.requests import Request
from kilonova.compute import key_pairs
from kilonova.db import key_pairs as rows
from kilonova.db.engine import Tx
from kilonova.db.key_pairs import KeyPair
from kilonova.errors import Invalid

_POLICY = "os_compute_api:os-keypairs:"


def _user(request: Request, rule: str) -> str:
    """Whose key pairs are meant; raises Forbidden where the caller may not touch them."""
    asked = request.query.all("user_id") if request.version >= versions.KEYPAIR_USER_ID else []
    user_id = (asked[0] if asked else "") or request.context.user_id
    request.authorize(_POLICY + rule, {"user_id": user_id})
    return user_id


async def index(request: Request) -> dict[str, Any]:
    user_id = _user(request, "index")
    paged = request.version >= versions.KEYPAIR_PAGING
    marker = request.query.last("marker") if paged else None

    async def work(tx: Tx) -> list[KeyPair]:
        after = None
        if marker is not None:
            after = await rows.get(tx, user_id, marker)
            if after is None:
                raise Invalid(f"Marker {marker} could not be found.")
        return await rows.find(tx, user_id, limit=request.page_limit() if paged else None, after=after)

    found = await request.runtime.db.read(work)
    render = IN_LIST.at(request.version)
    answer: dict[str, Any] = {"keypairs": [{"keypair": render(key_pair, None)} for key_pair in found]}
    if paged:
        links = request.next_links("os-keypairs", len(found), found[-1].name if found else None)
        if links:
            answer["keypairs_links"] = links
    return answer


async def show(request: Request) -> dict[str, Any]:
    user_id = _user(request, "show")

    async def work(tx: Tx) -> KeyPair:
        return await key_pairs.get(tx, user_id, request.params["id"])

    found = await request.runtime.db.read(work)
    return {"keypair": SHOWN.at(request.version)(found, None)}


async def create(request: Request) -> dict[str, Any]:
    fields = request.body["keypair"]
    user_id = fields.get("user_id") or request.context.user_id
    request.authorize(f"{_POLICY}create", {"user_id": user_id})
    created = await key_pairs.create(
        request.runtime,
        request.context,
        user_id=user_id,
        name=fields["name"].strip(),
        key_type=fields.get("type", "ssh"),
        public_key=fields.get("public_key"),
    )
    shown = CREATED.at(request.version)(created.key_pair, None)
    if created.private_key is not None:
        shown["private_key"] = created.private_key
    return {"keypair": shown}


async def delete(request: Request) -> None:
    user_id = _user(request, "delete")
    await key_pairs.delete(request.runtime, user_id, request.params["id"])
