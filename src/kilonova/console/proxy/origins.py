"""Whose pages may open a console: the proxy's own, and those of hosts that the operator names. Pure."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

_DEFAULT = {"http": 80, "https": 443}


def allowed(origin: str | None, host: str | None, others: Collection[str]) -> bool:
    """`origin`, `host`: the request's headers; `others`: HOST or HOST:PORT. No browser's page is without an Origin."""
    if origin is None:
        return True
    try:
        page = urlsplit(origin)
        port = page.port or _DEFAULT.get(page.scheme)
        asked = urlsplit(f"//{host or ''}")
        # Without a port in it the proxy is asked at the scheme's own, and a proxy before it may speak another scheme.
        ports = {asked.port} if asked.port else set(_DEFAULT.values())
        named = [urlsplit(f"//{other}") for other in others]
        if page.hostname is None or port is None:
            return False
        if page.hostname == asked.hostname and port in ports:
            return True
        return any(page.hostname == each.hostname and each.port in (None, port) for each in named)
    except ValueError:
        return False
