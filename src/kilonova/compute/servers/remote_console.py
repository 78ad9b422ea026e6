"""Opening a server's screen or serial line: the host says where it is, a token lets one browser in."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kilonova.agent.driver import ConsoleKind
from kilonova.bus.messages import ServerQuestion
from kilonova.compute import states
from kilonova.compute.servers.console import TIMEOUT
from kilonova.console import tokens
from kilonova.console.settings import SERIAL, VNC
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.console_tokens import ConsoleToken
from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.errors import Conflict, Invalid, NotFound, Unavailable
from kilonova.runtime import Runtime


async def remote_console(rt: Runtime, ctx: RequestContext, server: Server, protocol: str, console_type: str) -> str:
    """The URL at which the console opens once. Protocols and types are those of the Compute API.

    Raises Invalid for a type that this cloud or this server has not, Conflict while the guest is off,
    Unavailable when its host does not answer.
    """
    if protocol == "rdp":
        raise Invalid("Unavailable console type rdp.")
    what = f"Cannot 'get_{protocol}_console' instance {server.uuid} while it is in"
    if server.task_state == states.DELETING:
        raise Conflict(f"{what} task_state {server.task_state}")
    if server.host is None or server.vm_state == states.BUILDING:
        raise Conflict(f"Instance {server.uuid} is not ready")
    if server.vm_state not in tokens.LIVE:
        raise Conflict(f"{what} vm_state {server.vm_state}")
    kind, base = _kind(rt, protocol, console_type)
    question = ServerQuestion(server_uuid=server.uuid, what="console", args={"kind": kind})
    answer = await rt.bus.ask(f"agent.{server.host}", question, TIMEOUT)
    if answer.error is not None:
        match answer.data.get("refused"):
            case "off":
                raise Conflict(f"Instance {server.uuid} is not running, so it has no console.")
            case "none":
                raise Invalid(f"Unavailable console type {console_type}.")
        raise Unavailable(answer.error)
    page = answer.data.get("page")
    if page and kind in rt.settings.console.hosts_name:
        base = str(page)
    host, address, port = server.host, str(answer.data["host"]), int(str(answer.data["port"]))

    async def issue(tx: Tx) -> str:
        # What ends a guest revokes its tokens; one issued for an answer from before that must not come after it.
        now = await servers.get(tx, server.uuid, lock=True)
        if now is None or now.deleting:
            raise NotFound(f"Instance {server.uuid} could not be found.")
        if (now.host, now.vm_state, now.launched_at) != (server.host, server.vm_state, server.launched_at):
            raise Conflict(f"Instance {server.uuid} changed meanwhile; ask again.")
        return await tokens.issue(
            tx,
            rt.world,
            rt.settings.console,
            server_uuid=server.uuid,
            host=host,
            console_type=console_type,
            address=address,
            port=port,
        )

    return url_of(base, console_type, await rt.db.write(issue))


def _kind(rt: Runtime, protocol: str, console_type: str) -> tuple[ConsoleKind, str]:
    """What the host calls it, and the page it is shown in. Raises Invalid."""
    settings = rt.settings.console
    if protocol == "vnc" and settings.vnc_enabled:
        if console_type != VNC:
            raise Invalid(f"Invalid console type {console_type}")
        return "vnc", settings.vnc_url
    if protocol == "serial" and settings.serial_enabled:
        if console_type != SERIAL:
            raise Invalid(f"Invalid console type {console_type}")
        return "serial", settings.serial_url
    raise Invalid(f"Unavailable console type {console_type}.")


def url_of(base: str, console_type: str, token: str) -> str:
    """The page's address with the token in it, where noVNC's pages and the serial page look for it."""
    parts = urlsplit(base)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if console_type == VNC:
        query["path"] = f"{query.get('path', '')}?token={token}"
    else:
        query["token"] = token
    return urlunsplit(parts._replace(query=urlencode(query)))


async def show(rt: Runtime, token: str) -> ConsoleToken | None:
    """What a token opens while it is valid."""
    return await rt.db.read(lambda tx: tokens.find(tx, token))
