"""What a running guest has used of its CPUs, disks and interfaces, as its host counts it."""

from __future__ import annotations

from typing import Any

from kilonova.bus.messages import ServerQuestion
from kilonova.compute import states
from kilonova.compute.servers.console import TIMEOUT
from kilonova.db.servers import Server
from kilonova.errors import Conflict, Unavailable
from kilonova.runtime import Runtime


async def diagnostics(rt: Runtime, server: Server) -> dict[str, Any]:
    """The driver's document (see `agent.driver.Driver.diagnostics`).

    Raises Conflict when the guest does not run, Unavailable when its host does not answer.
    """
    if server.host is None:
        raise Conflict(f"Instance {server.uuid} is not ready")
    if server.power_state != states.POWER_RUNNING:
        raise Conflict(f"Cannot 'get_diagnostics' instance {server.uuid} while it is not running")
    question = ServerQuestion(server_uuid=server.uuid, what="diagnostics")
    answer = await rt.bus.ask(f"agent.{server.host}", question, TIMEOUT)
    if answer.error is not None:
        raise Unavailable(answer.error)
    return dict(answer.data)
