"""URLs of consoles: `remote-consoles`, the actions it took the place of, and what a token is for."""

from __future__ import annotations

from typing import Any

from kilonova.api import versions
from kilonova.api.errors import HttpError
from kilonova.api.requests import Request
from kilonova.api.routing import Handler
from kilonova.api.servers.lookup import find
from kilonova.compute.servers import remote_console
from kilonova.errors import NotFound

_RULE = "os_compute_api:os-remote-consoles"


async def create(request: Request) -> Any:
    server = await find(request, _RULE)
    wanted = request.body["remote_console"]
    url = await remote_console.remote_console(
        request.runtime, request.context, server, wanted["protocol"], wanted["type"]
    )
    return {"remote_console": {"protocol": wanted["protocol"], "type": wanted["type"], "url": url}}


def action(key: str, protocol: str) -> Handler:
    """The handler of `os-get...Console`."""

    async def handler(request: Request) -> Any:
        server = await find(request, _RULE, parameter="id")
        kind = request.body[key]["type"]
        url = await remote_console.remote_console(request.runtime, request.context, server, protocol, kind)
        return {"console": {"type": kind, "url": url}}

    return handler


async def show_token(request: Request) -> Any:
    if request.version < versions.CONSOLE_TOKENS_OF_EVERY_TYPE:
        raise HttpError(400, "Before version 2.31 only tokens of RDP consoles were shown, which are gone.")
    request.authorize("os_compute_api:os-console-auth-tokens")
    token = await remote_console.show(request.runtime, request.params["id"])
    if token is None:
        raise NotFound("Token not found")
    return {
        "console": {
            "instance_uuid": token.server_uuid,
            "host": token.address,
            "port": token.port,
            "internal_access_path": None,
        }
    }
