"""The console proxy: an ASGI application that serves the pages and carries browsers' connections to consoles."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

import structlog

from kilonova.bus import Bus
from kilonova.bus.messages import Answer, ConsumeConsoleToken, LiveConsoles
from kilonova.console.proxy import pages, relay, rfb
from kilonova.console.proxy.files import File
from kilonova.console.proxy.origins import allowed
from kilonova.console.proxy.relay import HOST_CLOSED, Line, Receive, Send
from kilonova.console.settings import CONSOLEAUTH, ProxySettings
from kilonova.errors import KilonovaError
from kilonova.world import World

log = structlog.get_logger(__name__)

LATER: Final = 1013
REFUSED: Final = 4401
"""Its reason is the token's refusal. These codes are those that `pages/session.js` has words for."""
UNAVAILABLE: Final = 4404
TIME_OVER: Final = 4408
REPLACED: Final = 4409
REVOKED: Final = 4410

_LONGEST = 128
"""Characters of a token or a session id; ours are shorter."""
_REASON = 120
"""Bytes of a reason: a close frame has room for 123."""
_ASK = 20.0
"""Seconds that consoleauth gets, which asks the host meanwhile."""
_ASKED_AT_ONCE = 32
"""Tokens: whoever guesses them by the thousand waits in line, and keeps consoleauth from nothing else."""
_CHUNK = 16 * 1024


@dataclass(eq=False, slots=True, kw_only=True)
class Session:
    """One browser at one console. Times are of the monotonic clock."""

    connection: str
    server: str
    kind: str
    until: float | None
    used_at: float
    ended: asyncio.Future[int | None]
    """With the code to close with."""

    def end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)


class ConsoleProxy:
    """`files`: what is served, by path. Needs a server of HTTP that makes slow readers wait (`server.py`).

    Raises Invalid when the settings name files for TLS that cannot be used.
    """

    def __init__(self, bus: Bus, world: World, settings: ProxySettings, files: Mapping[str, File]) -> None:
        self._bus = bus
        self._world = world
        self._settings = settings
        self._files = files
        self._tls = rfb.tls_context(settings.security)
        self._sessions: dict[str, Session] = {}
        """By the token's hash: a token opens one at a time."""
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._watching: asyncio.Task[None] | None = None

    @property
    def sessions(self) -> int:
        """How many there are now."""
        return len(self._sessions)

    async def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """When the server has stopped, which has closed the connections: pages come back to the next one."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await pages.answer(self._files, scope, send)
        elif scope["type"] == "websocket":
            await self._connected(scope, receive, send)

    async def _connected(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        # Before the token is looked at: another's page must not use it up.
        if not allowed(origin, headers.get(b"host"), self._settings.allowed_origins):
            log.warning("console.foreign_origin", origin=origin)
            await send({"type": "websocket.close"})
            return
        # Browsers do not tell pages why a handshake failed; a close frame's code and reason they do.
        protocol = "binary" if "binary" in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": protocol})
        query = parse_qs(scope["query_string"].decode("latin-1"))
        token, session = (query.get(name, [""])[-1] for name in ("token", "session"))
        code, reason = await self._serve(token, session, receive, send)
        if code is not None:
            words = reason.encode()[:_REASON].decode(errors="ignore")
            try:
                await send({"type": "websocket.close", "code": code, "reason": words})
            except (OSError, RuntimeError):
                return  # it has left meanwhile

    async def _serve(self, token: str, session: str, receive: Receive, send: Send) -> tuple[int | None, str]:
        """Open what the token is for, and carry it to its end. The code to close with; None: the browser has left."""
        if not 0 < len(token) <= _LONGEST or len(session) > _LONGEST:
            return REFUSED, "unknown"
        try:
            async with self._asking:
                answer = await self._bus.ask(CONSOLEAUTH, ConsumeConsoleToken(token=token, session=session), _ASK)
        except KilonovaError as error:
            answer = Answer(error=error.message)
        if answer.error is not None:
            log.warning("console.no_answer", error=answer.error)
            return LATER, "The cloud does not answer."
        found = answer.data
        match found.get("refused"):
            case None:
                return await self._open(token, found, receive, send)
            case "unavailable":
                return UNAVAILABLE, str(found.get("message", ""))
            case refusal:
                return REFUSED, str(refusal)

    async def _open(self, token: str, found: Mapping[str, Any], receive: Receive, send: Send) -> tuple[int | None, str]:
        now = self._world.monotonic()
        seconds = found["seconds"]
        session = Session(
            connection=found["connection"],
            server=found["server"],
            kind=found["kind"],
            until=None if seconds is None else now + seconds,
            used_at=now,
            ended=asyncio.get_running_loop().create_future(),
        )
        key = hashlib.sha256(token.encode()).hexdigest()
        earlier = self._sessions.get(key)
        if earlier is not None:
            earlier.end(REPLACED)
        self._sessions[key] = session
        code: int | None = None
        try:
            code = await self._carry(session, found, receive, send)
            return code, ""
        finally:
            if self._sessions.get(key) is session:
                del self._sessions[key]
            log.info("console.ended", server=session.server, kind=session.kind, code=code)

    async def _carry(self, session: Session, found: Mapping[str, Any], receive: Receive, send: Send) -> int | None:
        try:
            line = await self._connect(session, found, receive, send)
        except OSError as error:
            log.warning("console.unreachable", server=session.server, host=found["host"], error=str(error))
            return HOST_CLOSED
        if line is None:
            return None

        def used(data: bytes) -> None:
            if relay.is_use(session.kind, data):
                session.used_at = self._world.monotonic()

        try:
            return await relay.until_any(
                session.ended, relay.to_guest(receive, line, used), relay.to_browser(line, send, _CHUNK)
            )
        finally:
            line.close()

    async def _connect(self, session: Session, found: Mapping[str, Any], receive: Receive, send: Send) -> Line | None:
        """To the console on its host. None: the browser has left meanwhile. Raises OSError."""
        settings = self._settings
        line = await Line.open(
            found["host"], found["port"], found["ticket"], buffer=settings.buffer, timeout=settings.connect_timeout
        )
        if session.kind != "vnc" or settings.security.plain:
            return line
        said = None
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await rfb.secure(line, settings.security, self._tls)
                said = await rfb.greet(receive, send)
                if said is not None:
                    line.writer.write(said)
        finally:
            if said is None:
                line.close()
        return None if said is None else line

    # -- which may go on
    async def _watch(self) -> None:
        while True:
            await self._world.sleep(self._settings.watch)
            now, idle = self._world.monotonic(), self._settings.idle_timeout
            for session in self._sessions.values():
                if (session.until is not None and session.until <= now) or (idle and now - session.used_at > idle):
                    session.end(TIME_OVER)
            await self._ask_which_go_on()

    async def _ask_which_go_on(self) -> None:
        live = {session.connection: session for session in self._sessions.values()}
        if not live:
            return
        try:
            answer = await self._bus.ask(CONSOLEAUTH, LiveConsoles(connections=list(live)), _ASK)
        except KilonovaError as error:
            answer = Answer(error=error.message)
        if answer.error is not None:
            # They go on: a guest's end closes its console by itself.
            log.warning("console.no_answer", error=answer.error)
            return
        ended = answer.data["ended"]
        assert isinstance(ended, dict)
        for connection, why in ended.items():
            if connection in live:
                live[connection].end(REPLACED if why == "replaced" else REVOKED)
