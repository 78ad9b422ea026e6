"""Finding the server that a request names, and what its caller may see of it."""

from __future__ import annotations

from kilonova.api.requests import Request
from kilonova.api.servers.view import Kind, Links, Rights, Surroundings, View
from kilonova.db import server_list, servers
from kilonova.db.engine import Tx
from kilonova.db.server_list import ViewRow
from kilonova.db.servers import Server
from kilonova.errors import NotFound


def not_found(uuid: str) -> NotFound:
    return NotFound(f"Instance {uuid} could not be found.")


def own_project(request: Request) -> str | None:
    """The project whose servers the caller can name; None for administrators, who can name any."""
    return None if request.context.is_admin else request.context.project_id


async def find(request: Request, *rules: str, parameter: str = "server_id", deleted: bool = False) -> Server:
    """The server in the path, on which the caller may do `rules`. Raises NotFound, Forbidden."""
    uuid = request.params[parameter]

    async def read(tx: Tx) -> Server | None:
        return await servers.get(tx, uuid, project_id=own_project(request), deleted=deleted)

    server = await request.runtime.db.read(read)
    if server is None:
        raise not_found(uuid)
    for rule in rules:
        request.authorize(rule, {"project_id": server.project_id, "user_id": server.user_id})
    return server


def rights(request: Request, project_id: str | None = None) -> Rights:
    """What policy lets the caller see: of the servers of a project, or in a list (None)."""
    target = None if project_id is None else {"project_id": project_id}
    all_statuses = request.allowed("os_compute_api:servers:show:host_status", target)
    return Rights(
        extended=request.allowed("os_compute_api:os-extended-server-attributes", target),
        host_status=all_statuses,
        host_unknown=all_statuses or request.allowed("os_compute_api:servers:show:host_status:unknown-only", target),
        extra_specs=request.allowed("os_compute_api:servers:show:flavor-extra-specs", target),
        fault_details=request.context.is_admin,
    )


def surroundings(request: Request) -> Surroundings:
    settings = request.runtime.settings
    return Surroundings(
        links=Links(self_base=request.self_prefix, bookmark_base=request.bookmark_prefix),
        service_down_time=settings.service_down_time,
        default_zone=settings.default_availability_zone,
        name_template=settings.instance_name_template,
    )


async def view_row(request: Request, uuid: str) -> ViewRow:
    """The server as views read it, of the caller's project or of any for administrators. Raises NotFound."""

    async def read(tx: Tx) -> ViewRow | None:
        return await server_list.view_row(tx, uuid, project_id=own_project(request))

    row = await request.runtime.db.read(read)
    if row is None:
        raise not_found(uuid)
    return row


async def view_of(request: Request, uuid: str, kind: Kind, *, admin_password: str | None = None) -> dict[str, object]:
    """The answer that shows one server as it is now. Raises NotFound."""
    row = await view_row(request, uuid)
    view = View(request.version, kind, rights(request, row.project_id), surroundings(request), admin_password)
    return {"server": view.one(row)}
