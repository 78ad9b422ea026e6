"""Lock, unlock, console output and reset of the state."""

from __future__ import annotations

import re
from typing import Any

from kilonova.api import versions
from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.api.types import whole
from kilonova.compute import states
from kilonova.compute.servers import lock as locks
from kilonova.compute.servers.console import console_output as read_console
from kilonova.compute.servers.reset import reset_state as reset

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")


async def lock(request: Request) -> None:
    server = await find(request, "os_compute_api:os-lock-server:lock", parameter="id")
    reason = None
    if request.version >= versions.LOCKED_REASON and request.body["lock"] is not None:
        reason = request.body["lock"].get("locked_reason")
    if server.locked and server.project_id == request.context.project_id:
        # An owner cannot take over an administrator's lock.
        return
    await locks.lock(request.runtime, request.context, server, reason)


async def unlock(request: Request) -> None:
    server = await find(request, "os_compute_api:os-lock-server:unlock", parameter="id")
    expected = "owner" if server.project_id == request.context.project_id else "admin"
    if server.locked_by is not None and server.locked_by != expected:
        request.authorize("os_compute_api:os-lock-server:unlock:unlock_override", {"project_id": server.project_id})
    await locks.unlock(request.runtime, request.context, server)


async def console_output(request: Request) -> Any:
    server = await find(request, "os_compute_api:os-console-output", parameter="id")
    length = request.body["os-getConsoleOutput"].get("length")
    lines = None if length is None or (asked := whole(length)) < 0 else asked
    output = await read_console(request.runtime, request.context, server, lines)
    return {"output": _CONTROL.sub("", output)}


async def reset_state(request: Request) -> None:
    server = await find(request, "os_compute_api:os-admin-actions:reset_state", parameter="id")
    wanted = request.body["os-resetState"]["state"]
    await reset(request.runtime, request.context, server, states.ACTIVE if wanted == "active" else states.ERROR)
