"""What a guest wrote to its serial console."""

from __future__ import annotations

from kilonova.bus.messages import ServerQuestion
from kilonova.context import RequestContext
from kilonova.db.servers import Server
from kilonova.errors import Conflict, Unavailable
from kilonova.runtime import Runtime

TIMEOUT = 20.0
"""Seconds that the host gets to answer."""


async def console_output(rt: Runtime, ctx: RequestContext, server: Server, lines: int | None) -> str:
    """The last `lines` lines (None: all that is kept). Raises Conflict while there is no guest yet."""
    if server.host is None:
        raise Conflict(f"Instance {server.uuid} is not ready")
    question = ServerQuestion(server_uuid=server.uuid, what="console_output", args={"lines": lines})
    answer = await rt.bus.ask(f"agent.{server.host}", question, TIMEOUT)
    if answer.error is not None:
        raise Unavailable(answer.error)
    return str(answer.data["output"])
