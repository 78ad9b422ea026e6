"""Consoles: the page as users reach it, and the way of a token from the proxy to consoleauth and back."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from urllib.parse import urlsplit

import httpx
import websockets.asyncio.client
import websockets.exceptions
from websockets.typing import Origin

from kilonova.console.proxy.proxy import LATER, REFUSED
from kilonova.doctor.findings import Finding, ok, wrong
from kilonova.doctor.site import Site

PATIENCE = 30.0
"""Seconds: the proxy itself gives consoleauth twenty."""


async def look(site: Site) -> list[Finding]:
    found = []
    for kind, page in site.pages.items():
        reached = await _page(site, page)
        found.append(reached)
        if reached.result == "ok" and kind == "vnc":
            found.append(await _token(page))
    return found


async def _page(site: Site, page: str) -> Finding:
    option = "[vnc] novncproxy_base_url"
    fix = f"start nova-novncproxy, or correct {option} in {site.name}"
    try:
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            answer = await http.get(page)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        if "CERTIFICATE" in reason.upper():
            fix = f"the console proxy's certificate ([DEFAULT] cert): browsers refuse it too; or correct {option}"
        return wrong("console: page", f"{page}: {reason}", fix)
    if answer.status_code != 200 or "html" not in answer.headers.get("Content-Type", ""):
        return wrong("console: page", f"{page}: {answer.status_code}, no page", fix)
    return ok("console: page", page)


async def _token(page: str) -> Finding:
    """A made-up one has to be refused by consoleauth itself."""
    check = "console: tokens"
    parts = urlsplit(page)
    scheme = "wss" if parts.scheme == "https" else "ws"
    address = f"{scheme}://{parts.netloc}/?token=doctor-{secrets.token_hex(8)}"
    fix = "start nova-consoleauth, and look into the log of nova-novncproxy: it needs the broker"
    try:
        async with asyncio.timeout(PATIENCE):
            async with websockets.asyncio.client.connect(
                address, origin=Origin(f"{parts.scheme}://{parts.netloc}"), proxy=None
            ) as connection:
                try:
                    await connection.recv()
                except websockets.exceptions.ConnectionClosed:
                    code, reason = connection.close_code, connection.close_reason
                else:
                    return wrong(check, "a made-up token opened something", "is it Kilonova's proxy?")
    except (OSError, TimeoutError, ssl.SSLError, websockets.exceptions.WebSocketException) as error:
        return wrong(check, str(error) or type(error).__name__, fix)
    if code == REFUSED:
        return ok(check, "consoleauth answers the proxy")
    if code == LATER:
        return wrong(check, f"consoleauth does not answer the proxy: {reason}", fix)
    return wrong(check, f"the connection was closed with {code} {reason}", fix)
