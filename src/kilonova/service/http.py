"""Answering HTTP: one ASGI application at one address, until its stack ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from kilonova.errors import Conflict
from kilonova.service import certificates

FOREVER = 10**9
"""Seconds."""

Application = Callable[[Any, Any, Any], Awaitable[None]]
"""ASGI's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """`certificate`: (certificate, key), for TLS."""

    socket: socket.socket
    certificate: tuple[str, str] | None = None


def listen(address: str, port: int) -> socket.socket:
    """A socket that connections wait at. Raises Conflict when the address is taken or is not ours."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=1024, reuse_port=False)
    except OSError as error:
        raise Conflict(f"Nothing can be served at {address} port {port}: {error.strerror}.") from error


async def serve(
    stack: contextlib.AsyncExitStack,
    app: Application,
    listener: socket.socket,
    *,
    idle: int,
    certificate: tuple[str, str] | None = None,
    grace: int = 5,
) -> Config:
    """Return when `listener` is answered. Requests under way at the end get `grace` seconds.

    Connections are ended after `idle` seconds without a request (0: never). One that is ended while its client sends
    the next request fails that: it should be longer than clients and proxies keep theirs.
    """
    certfile, keyfile = certificate or (None, None)
    served = Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=True,
        ws="none",
        # Ours decides whom to believe ([oslo_middleware]); this one believes whoever is on this machine.
        proxy_headers=False,
        timeout_graceful_shutdown=grace,
        timeout_keep_alive=idle or FOREVER,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    await serve_as(stack, served, listener)
    return served


def renew(served: Config, certificate: tuple[str, str] | None) -> None:
    """Connections from now on get this certificate, if there is TLS at all."""
    if served.ssl is not None:
        certificates.renew(served.ssl, certificate)


async def serve_as(stack: contextlib.AsyncExitStack, served: Config, listener: socket.socket) -> None:
    """Return when `listener` is answered by what is configured."""
    server = Server(served)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment] # signals are the process's
    task = asyncio.create_task(server.serve(sockets=[listener]))

    async def stop() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(stop)
    while not server.started:
        if task.done():
            await task
            raise RuntimeError(f"the server at {listener.getsockname()} ended at once")
        await asyncio.sleep(0.01)
