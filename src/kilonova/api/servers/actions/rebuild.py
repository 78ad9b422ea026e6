"""The action `rebuild`."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.api.responses import Response
from kilonova.api.servers import certificates, unbuilt
from kilonova.api.servers.create import boolean
from kilonova.api.servers.lookup import find, view_of
from kilonova.api.servers.update import COLUMNS
from kilonova.api.servers.view import Kind
from kilonova.compute import quota_usage
from kilonova.compute.servers.rebuild import RebuildRequest
from kilonova.compute.servers.rebuild import rebuild as rebuild_server
from kilonova.compute.signatures import trusted_by_default
from kilonova.db import key_pairs
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.errors import Invalid, OverQuota

_RULE = "os_compute_api:servers:rebuild"


async def rebuild(request: Request) -> Response:
    server = await find(request, _RULE, parameter="id")
    asked = request.body["rebuild"]
    trusted = certificates.trusted(request, asked, _RULE)
    if boolean(asked.get("preserve_ephemeral")):
        raise unbuilt.unbuilt("rebuild: preserve_ephemeral")
    if asked.get("personality"):
        raise unbuilt.unbuilt("rebuild: personality")
    changes = {column: asked[field] for field, column in COLUMNS.items() if field in asked}
    changes.setdefault("disk_config", "MANUAL")  # what a new server has too, not what this one had
    if "name" in asked:
        changes["display_name"] = asked["name"].strip()
    if "user_data" in asked:
        changes["user_data"] = asked["user_data"]
    if "trusted_image_certificates" in asked:
        changes["trusted_certs"] = trusted or trusted_by_default(request.runtime.settings)
    if "metadata" in asked:
        await _check_quota(request, server, len(asked["metadata"]))
        changes["metadata"] = asked["metadata"]
    if "key_name" in asked:
        changes.update(await _key(request, server, asked["key_name"]))
    password = await rebuild_server(
        request.runtime,
        request.context,
        server,
        RebuildRequest(
            image_ref=asked["imageRef"],
            admin_password=asked.get("adminPass"),
            changes=changes,
            token=certificates.token_of(request),
        ),
    )
    shown = password if request.runtime.settings.enable_instance_password else None
    view = await view_of(request, server.uuid, Kind.REBUILD, admin_password=shown)
    return Response(view, headers={"Location": request.links("servers", server.uuid)[0]["href"]})


async def _check_quota(request: Request, server: Server, items: int) -> None:
    async def read(tx: Tx) -> int:
        user_id, quota = request.context.user_id, request.runtime.settings.quota
        limits = await quota_usage.read_limits(tx, server.project_id, user_id, quota)
        return limits.of_user["metadata_items"]

    allowed = await request.runtime.db.read(read)
    if 0 <= allowed < items:
        raise OverQuota(f"Maximum number of metadata items exceeds {allowed}")


async def _key(request: Request, server: Server, name: str | None) -> dict[str, Any]:
    if name is None:
        return {"key_name": None, "key_data": None, "key_type": None}
    # The key is the server's owner's, whoever rebuilds it.
    key = await request.runtime.db.read(lambda tx: key_pairs.get(tx, server.user_id, name))
    if key is None:
        raise Invalid("Invalid key_name provided.")
    return {"key_name": key.name, "key_data": key.public_key, "key_type": key.type}
