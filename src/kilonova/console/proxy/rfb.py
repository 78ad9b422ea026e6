"""The start of a screen's connection (RFB 3.8) where the operator has it secured: the proxy speaks to the host, by TLS
(VeNCrypt, X509None), and to the browser, which needs to know nothing of it. Afterwards bytes are carried as they are.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from kilonova.console.proxy.relay import Line, Receive, Send
from kilonova.console.settings import NONE, VENCRYPT, ScreenSecurity
from kilonova.errors import Invalid

_VERSION: Final = b"RFB 003.008\n"
_TYPES: Final = {NONE: 1, VENCRYPT: 19}
_X509_NONE: Final = 260
_OK: Final = bytes(4)


class Refused(OSError):
    """The host does not offer what the operator asks for, or says no."""


def tls_context(security: ScreenSecurity) -> ssl.SSLContext | None:
    """None where no scheme needs it. Names in hosts' certificates do not count, only who signed them.

    Raises Invalid for files that cannot be used.
    """
    if VENCRYPT not in security.schemes:
        return None
    try:
        context = ssl.create_default_context(cafile=security.authorities)
        context.check_hostname = False
        context.load_cert_chain(security.certificate, security.key)
    except OSError as error:
        raise Invalid(
            f"[vnc] auth_schemes has vencrypt, and its files cannot be used ({error}): see vencrypt_ca_certs "
            f"({security.authorities}), vencrypt_client_cert ({security.certificate}), vencrypt_client_key "
            f"({security.key})."
        ) from None
    return context


async def secure(line: Line, security: ScreenSecurity, context: ssl.SSLContext | None) -> None:
    """Agree with the host on the first of the schemes that it offers. Raises OSError."""
    try:
        await _secure(line, security, context)
    except (asyncio.IncompleteReadError, ssl.SSLError) as error:
        raise Refused(f"the host broke off: {error}") from None


async def _secure(line: Line, security: ScreenSecurity, context: ssl.SSLContext | None) -> None:
    version = await line.reader.readexactly(12)
    if version < _VERSION or not version.startswith(b"RFB 003."):
        raise Refused(f"the host speaks {version!r}")
    line.writer.write(_VERSION)
    offered = await line.reader.readexactly((await line.reader.readexactly(1))[0])
    scheme = next((each for each in security.schemes if _TYPES[each] in offered), None)
    if scheme is None:
        raise Refused(f"the host offers the security types {list(offered)}, none of {', '.join(security.schemes)}")
    line.writer.write(bytes([_TYPES[scheme]]))
    if scheme == VENCRYPT:
        assert context is not None
        await _encrypt(line, context)
    if await line.reader.readexactly(4) != _OK:
        raise Refused("the host refuses the connection")


async def _encrypt(line: Line, context: ssl.SSLContext) -> None:
    if await line.reader.readexactly(2) < b"\0\2":
        raise Refused("the host speaks an old VeNCrypt")
    line.writer.write(b"\0\2")
    if await line.reader.readexactly(1) != b"\0":
        raise Refused("the host refuses VeNCrypt 0.2")
    count = (await line.reader.readexactly(1))[0]
    found = await line.reader.readexactly(4 * count)
    wanted = _X509_NONE.to_bytes(4, "big")
    if wanted not in [found[at : at + 4] for at in range(0, len(found), 4)]:
        raise Refused("the host's screen has no certificate, or a password")
    line.writer.write(wanted)
    if await line.reader.readexactly(1) != b"\1":
        raise Refused("the host refuses to begin TLS")
    await line.encrypt(context)


async def greet(receive: Receive, send: Send) -> bytes | None:
    """Let the browser in without a password. What it has said beyond that already; None: it has left."""
    browser = _Browser(receive)
    await send({"type": "websocket.send", "bytes": _VERSION})
    if (version := await browser.take(12)) is None:
        return None
    if version == _VERSION:
        await send({"type": "websocket.send", "bytes": bytes([1, _TYPES[NONE]])})
        if await browser.take(1) is None:
            return None
        await send({"type": "websocket.send", "bytes": _OK})
    else:
        # Until 3.7 nothing is said about a connection without a password; until 3.3 the server decides.
        old = version < b"RFB 003.007\n"
        await send({"type": "websocket.send", "bytes": b"\0\0\0\1" if old else bytes([1, _TYPES[NONE]])})
        if not old and await browser.take(1) is None:
            return None
    return bytes(browser.held)


class _Browser:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.held = bytearray()

    async def take(self, count: int) -> bytes | None:
        while len(self.held) < count:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return None
            self.held += message.get("bytes") or (message.get("text") or "").encode()
        taken = bytes(self.held[:count])
        del self.held[:count]
        return taken
