"""Answers to browsers that ask for a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilonova.console.proxy.files import File
from kilonova.console.proxy.relay import Send

_HEADERS = (
    (b"cache-control", b"no-cache"),
    (b"x-content-type-options", b"nosniff"),
    # The page's own address has the token in it.
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src ws: wss:",
    ),
)
_NOTHING = b"There is nothing at this path. Compute gives the addresses of consoles.\n"


async def answer(files: Mapping[str, File], scope: Mapping[str, Any], send: Send) -> None:
    """One request of HTTP, answered from the files."""
    file = files.get(scope["path"])
    kind = "text/plain"
    more: tuple[tuple[bytes, bytes], ...] = ()
    if scope["method"] not in ("GET", "HEAD"):
        status, body, more = 405, b"Pages are read with GET.\n", ((b"allow", b"GET, HEAD"),)
    elif file is None:
        status, body = 404, _NOTHING
    else:
        kind, more = file.kind, ((b"etag", file.tag.encode()),)
        known = dict(scope["headers"]).get(b"if-none-match", b"")
        status, body = (304, b"") if file.tag.encode() in known else (200, file.body)
    headers = [*_HEADERS, *more, (b"content-type", f"{kind}; charset=utf-8".encode())]
    if status != 304:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
