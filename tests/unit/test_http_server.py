"""Connections that clients keep between requests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from kilonova import config
from kilonova.service.http import listen, serve
from tests.support.processes import free_port

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(REQUEST)
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    return await asyncio.wait_for(reader.readexactly(5), 60)


@pytest.mark.parametrize(("idle", "kept"), [(0, True), (900, True), (1, False)])
async def test_a_connection_is_kept_for_as_long_as_configured(idle: int, kept: bool) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        await serve(stack, hello, listen("127.0.0.1", port), idle=idle)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        assert await ask(reader, writer) == b"hello"
        if kept:
            await asyncio.sleep(1.5)
            assert await ask(reader, writer) == b"hello"
        else:
            assert await asyncio.wait_for(reader.read(), 60) == b""


def test_clients_and_proxies_that_keep_theirs_for_minutes_meet_no_end() -> None:
    """One ended while the next request is on its way fails that request."""
    conf = config.load([])
    assert conf.wsgi.client_socket_timeout == 900
