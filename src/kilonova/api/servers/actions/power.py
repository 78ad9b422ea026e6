"""Reboot, start, stop, pause, unpause, suspend, resume, delete by force, and restore."""

from __future__ import annotations

from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.compute.servers import delete as deletion
from kilonova.compute.servers import power, soft_delete


async def reboot(request: Request) -> None:
    server = await find(request, "os_compute_api:servers:reboot", parameter="id")
    hard = request.body["reboot"]["type"].lower() == "hard"
    await power.reboot(request.runtime, request.context, server, hard=hard)


async def start(request: Request) -> None:
    server = await find(request, "os_compute_api:servers:start", parameter="id")
    await power.start(request.runtime, request.context, server)


async def stop(request: Request) -> None:
    server = await find(request, "os_compute_api:servers:stop", parameter="id")
    await power.stop(request.runtime, request.context, server)


async def pause(request: Request) -> None:
    server = await find(request, "os_compute_api:os-pause-server:pause", parameter="id")
    await power.pause(request.runtime, request.context, server)


async def unpause(request: Request) -> None:
    server = await find(request, "os_compute_api:os-pause-server:unpause", parameter="id")
    await power.unpause(request.runtime, request.context, server)


async def suspend(request: Request) -> None:
    server = await find(request, "os_compute_api:os-suspend-server:suspend", parameter="id")
    await power.suspend(request.runtime, request.context, server)


async def resume(request: Request) -> None:
    server = await find(request, "os_compute_api:os-suspend-server:resume", parameter="id")
    await power.resume(request.runtime, request.context, server)


async def force_delete(request: Request) -> None:
    server = await find(request, "os_compute_api:os-deferred-delete:force", parameter="id")
    await deletion.delete(request.runtime, request.context, server)


async def restore(request: Request) -> None:
    server = await find(request, "os_compute_api:os-deferred-delete:restore", parameter="id")
    await soft_delete.restore(request.runtime, request.context, server)
