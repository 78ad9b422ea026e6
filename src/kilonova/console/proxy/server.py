"""How the proxy is to be served: what a session may cost is decided here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.config import Config

from kilonova.console.settings import ProxySettings

Application = Callable[[Any, Any, Any], Awaitable[None]]
"""The proxy, as ASGI has it."""
_PING = 30.0
"""Seconds between two, so that a browser that vanished is noticed, and middle boxes keep the connection."""


def server_config(proxy: Application, settings: ProxySettings, **more: Any) -> Config:
    """This implementation of WebSockets stops reading while a message waits. Without compression: its windows would
    cost more than all the rest of a session, and a viewer asks for pictures that are compressed already.
    """
    return Config(
        proxy,
        ws="websockets-sansio",
        ws_max_size=settings.message_limit,
        ws_per_message_deflate=False,
        ws_ping_interval=_PING,
        ws_ping_timeout=_PING,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
        **more,
    )
