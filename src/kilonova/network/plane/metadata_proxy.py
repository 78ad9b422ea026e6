"""What guests find at 169.254.169.254: says who asks, signs it, and hands the question to the metadata service.

Who asks follows from the namespace that the question arrives in and the address that it comes from, which the
firewall lets nobody else use: equal addresses of two networks cannot be confused.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable, Container, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import httpx
from uvicorn.config import Config
from uvicorn.server import ServerState

from kilonova.metadata.signing import sign
from kilonova.network.plan import Client

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

TIMEOUT = 30.0
"""Seconds for an answer."""

MOST = 64 * 1024
"""Bytes of what a guest may send."""

_PASSED = frozenset({b"content-type", b"accept", b"user-agent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataTarget:
    """`url`: without a path."""

    url: str
    secret: str


class MetadataProxy:
    """One for a plane; `open` for each namespace."""

    def __init__(self, service: MetadataTarget) -> None:
        self._service = service
        self._http = httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT, trust_env=False)
        self._servers: dict[str, asyncio.Server] = {}
        self._clients: dict[str, Mapping[str, Client]] = {}
        self._state = ServerState()

    def know(self, space: str, clients: Mapping[str, Client]) -> None:
        """Who may ask there, by address."""
        self._clients[space] = clients

    def is_open(self, space: str) -> bool:
        return space in self._servers

    async def open(self, space: str, listener: socket.socket) -> None:
        config = Config(
            functools.partial(self._answer, space), log_config=None, access_log=False, lifespan="off",
            server_header=False, ws="none", interface="asgi3",
        )  # fmt: skip
        config.load()
        protocol: Any = config.http_protocol_class
        factory: Any = functools.partial(protocol, config=config, server_state=self._state, app_state={})
        self._servers[space] = await asyncio.get_running_loop().create_server(factory, sock=listener)

    def keep(self, spaces: Container[str]) -> None:
        """Others are shut."""
        for space in [each for each in self._servers if each not in spaces]:
            self.shut(space)

    def shut(self, space: str) -> None:
        self._clients.pop(space, None)
        server = self._servers.pop(space, None)
        if server is not None:
            server.close()

    async def close(self) -> None:
        for space in list(self._servers):
            self.shut(space)
        for connection in list(self._state.connections):
            # A guest that has been killed does not close its own.
            connection.shutdown()
        await self._http.aclose()

    async def _answer(self, space: str, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        address = scope["client"][0]
        client = self._clients.get(space, {}).get(address)
        if client is None:
            await _say(send, 404, b"The network has no server with this address.\n")
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MOST:
                await _say(send, 413, b"Too much.\n")
                return
            if not message.get("more_body", False):
                break
        passed = ((name, value) for name, value in scope["headers"] if name in _PASSED)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in passed]
        headers += [
            ("x-forwarded-for", address),
            ("x-instance-id", client.server_id),
            ("x-tenant-id", client.project_id),
            ("x-instance-id-signature", sign(self._service.secret, client.server_id)),
        ]
        path = scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        try:
            answer = await self._http.request(
                scope["method"], f"{path}?{query}" if query else path, headers=headers, content=body
            )
        except httpx.HTTPError:
            await _say(send, 503, b"The metadata service does not answer.\n")
            return
        kind = answer.headers.get("content-type", "text/plain")
        await _say(send, answer.status_code, answer.content, [(b"content-type", kind.encode("latin-1"))])


async def _say(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = headers or [(b"content-type", b"text/plain; charset=utf-8")]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})
