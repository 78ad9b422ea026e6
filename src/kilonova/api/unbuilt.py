"""Operations that the API has and this release has not, and those that every release has lost.

Both are recognised, so that a client is told what is the matter: 501 for what is not built, with nothing
changed, and 410 for what was removed long ago. `[a-b]` are the microversions, both included.
"""

from __future__ import annotations

import re
from typing import Any

from kilonova.api.errors import HttpError
from kilonova.api.fields import OPEN_QUERY
from kilonova.api.requests import Request
from kilonova.api.routing import Action, Route, action, route
from kilonova.errors import NotImplementedHere

_LATER = """
    GET /extensions
    GET /extensions/{id}
    GET /images [-2.35]
    GET /images/detail [-2.35]
    DELETE,GET /images/{id} [-2.35]
    GET,POST,PUT /images/{image_id}/metadata [-2.38]
    DELETE,GET,PUT /images/{image_id}/metadata/{id} [-2.38]
    POST /os-assisted-volume-snapshots
    DELETE /os-assisted-volume-snapshots/{id}
    GET,POST /os-baremetal-nodes [-2.35]
    DELETE,GET /os-baremetal-nodes/{id} [-2.35]
    POST /os-baremetal-nodes/{id}/action add_interface [-2.35]
    POST /os-baremetal-nodes/{id}/action remove_interface [-2.35]
    GET,POST /os-snapshots [-2.35]
    GET /os-snapshots/detail [-2.35]
    DELETE,GET /os-snapshots/{id} [-2.35]
    GET,POST /os-volumes [-2.35]
    GET /os-volumes/detail [-2.35]
    DELETE,GET /os-volumes/{id} [-2.35]
    DELETE /servers/{server_id}/migrations/{id} [2.24-]
    POST /servers/{server_id}/migrations/{id}/action force_complete [2.22-]
    GET,POST /servers/{server_id}/os-volume_attachments
    DELETE,GET,PUT /servers/{server_id}/os-volume_attachments/{id}
    GET,POST /servers/{server_id}/shares [2.97-]
    DELETE,GET /servers/{server_id}/shares/{id} [2.97-]
"""

_GONE = """
    GET,POST /os-agents
    DELETE,PUT /os-agents/{id}
    GET,POST /os-cells
    GET /os-cells/capacities
    GET /os-cells/detail
    GET /os-cells/info
    POST /os-cells/sync_instances
    DELETE,GET,PUT /os-cells/{id}
    GET /os-cells/{id}/capacities
    GET,POST /os-cloudpipe
    PUT /os-cloudpipe/{id}
    GET /os-fixed-ips/{id}
    POST /os-fixed-ips/{id}/action reserve
    POST /os-fixed-ips/{id}/action unreserve
    GET /os-floating-ip-dns
    DELETE,GET,PUT /os-floating-ip-dns/{domain_id}/entries/{id}
    DELETE,PUT /os-floating-ip-dns/{id}
    GET,POST /os-floating-ips-bulk
    GET,PUT /os-floating-ips-bulk/{id}
    GET /os-fping
    GET /os-fping/{id}
    POST /os-networks
    POST /os-networks/add
    DELETE /os-networks/{id}
    POST /os-networks/{id}/action associate_host
    POST /os-networks/{id}/action disassociate
    POST /os-networks/{id}/action disassociate_host
    POST /os-networks/{id}/action disassociate_project
    GET,POST /os-security-group-default-rules
    DELETE,GET /os-security-group-default-rules/{id}
    POST /os-tenant-networks
    DELETE /os-tenant-networks/{id}
    GET,POST /servers/{server_id}/consoles
    DELETE,GET /servers/{server_id}/consoles/{id}
    GET /servers/{server_id}/os-virtual-interfaces
"""

_LINE = re.compile(r"(?P<methods>\S+) (?P<path>\S+)( (?P<key>[^\s\[]+))?( \[(?P<since>[\d.]*)-(?P<until>[\d.]*)\])?")


async def later(request: Request) -> None:
    raise NotImplementedHere(f"{request.method} {request.path} is not available in this release. Nothing was changed.")


async def gone(request: Request) -> None:
    raise HttpError(410, "This resource is no longer available. No forwarding address is given.")


def _operations(table: str, status: int) -> list[Route | Action]:
    handler = gone if status == 410 else later
    found: list[Route | Action] = []
    for line in table.split("\n"):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        path, key = match["path"], match["key"]
        options: dict[str, Any] = {"since": match["since"] or None, "until": match["until"] or None, "status": status}
        for method in match["methods"].split(","):
            name = f"{handler.__name__}:{method} {path}"
            if key:
                found.append(action(path, key, handler, f"{name} {key}", **options))
            else:
                found.append(route(method, path, handler, name, query=OPEN_QUERY, **options))
    return found


UNBUILT: tuple[Route | Action, ...] = (*_operations(_LATER, 501), *_operations(_GONE, 410))
