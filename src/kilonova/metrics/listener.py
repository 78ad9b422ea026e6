"""`GET /metrics` and `/healthcheck` at a port of its own, for Prometheus and whoever watches the role.

Not at the API's port: that one is open to tenants, and roles without an API have to be seen as well
(docs/decisions/metrics-at-their-own-port.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client.exposition import choose_encoder

from kilonova.errors import Invalid
from kilonova.health import Health
from kilonova.metrics.families import REGISTRY, ROLE
from kilonova.metrics.loop import LoopWatch

log = structlog.get_logger()

Probe = Callable[[], Awaitable[None]]
"""Sets gauges that cost a question; called before an answer, at most once in `FRESH` seconds."""

FRESH = 5.0
"""Seconds: however many ask, the database is asked no more often."""
PATIENCE = 5.0
"""Seconds for a client to say what it wants, and for a probe to find out."""
INSTANCES = 10
"""Processes of one role on one machine that find a port of their own."""
STRIDE = 20
"""Between the ports of two of them."""
_HEAD = 8192

ROLES = ("api", "metadata", "scheduler", "conductor", "consoleauth", "cert", "console", "network", "compute", "plane")
PORTS = {name: 9487 + number for number, name in enumerate(ROLES)}
"""The port of each role that runs alone; one process with all of them uses the API's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """`port` None: the role's own, or the next one of its row (`STRIDE` apart) that is free."""

    enabled: bool = True
    listen: str = "127.0.0.1"
    port: int | None = None
    tls: ssl.SSLContext | None = None


class Listener:
    """Answers one request a connection."""

    def __init__(self, probes: Sequence[Probe] = (), health: Health | None = None) -> None:
        self._probes = probes
        self._health = health
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self.address = ("", 0)

    async def start(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._connected, sock=listening, limit=_HEAD, ssl=tls)
        self.address = listening.getsockname()[:2]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever asks badly is not answered: this port is for machines that know how.
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, kind, body = await self._answer(head)
            text = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            writer.write(text.encode() + b"\r\n" + (b"" if head.startswith("HEAD ") else body))
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
        writer.close()

    async def _answer(self, head: str) -> tuple[str, str, bytes]:
        lines = head.split("\r\n")
        method, _, rest = lines[0].partition(" ")
        path = rest.split(" ")[0].partition("?")[0]
        if path not in ("/metrics", "/healthcheck") or (path == "/healthcheck" and self._health is None):
            return "404 Not Found", "text/plain", b"There is /metrics here, nothing else.\n"
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "text/plain", b"Use GET.\n"
        accept = next((line.partition(":")[2] for line in lines if line.lower().startswith("accept:")), "")
        if path == "/healthcheck" and self._health is not None:
            found, kind, text = await self._health.answer(accept)
            return "200 OK" if found == 200 else f"{found} Service Unavailable", kind, text
        await self._ask()
        encode, kind = choose_encoder(accept.strip())
        # Thousands of lines take longer than the loop may be held up.
        return "200 OK", kind, await asyncio.to_thread(encode, REGISTRY)

    async def _ask(self) -> None:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if self._asked_at is not None and now - self._asked_at < FRESH:
                return
            self._asked_at = now
            for probe in self._probes:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await probe()
                except Exception as error:
                    # What is known without asking is shown all the same; what is not keeps its last value.
                    log.warning("metrics.not_found_out", error=repr(error))


@contextlib.asynccontextmanager
async def serving(
    settings: MetricsSettings,
    role: str,
    *,
    first: int | None = None,
    roles: Sequence[str] = (),
    probes: Sequence[Probe] = (),
    health: Health | None = None,
) -> AsyncIterator[Listener | None]:
    """Watch the loop and show the metrics of this process, which runs `role` (or all of `roles`).

    `first`: the port to try first where the settings name none, instead of the role's. Yields the
    listener, None where it is switched off. Raises Invalid for an address that cannot be listened at.
    """
    version = importlib.metadata.version("kilonova")
    for name in roles or (role,):
        ROLE.labels(name, version).set(1)
    watch = LoopWatch()
    watch.start()
    try:
        if not settings.enabled:
            yield None
            return
        listener = Listener(probes, health)
        await listener.start(_bind(settings, first or PORTS[role]), settings.tls)
        log.info("metrics.served", role=role, address=listener.address[0], port=listener.address[1])
        try:
            yield listener
        finally:
            await listener.stop()
    finally:
        watch.stop()
        for name in roles or (role,):
            ROLE.remove(name, version)


def _bind(settings: MetricsSettings, first: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    ports = [first + STRIDE * n for n in range(INSTANCES)] if settings.port is None else [settings.port]
    for port in ports:
        try:
            return socket.create_server((settings.listen, port), family=family)
        except OSError as error:
            problem = error
    raise Invalid(
        f"Configuration: [prometheus] listen {settings.listen}, port {ports[0]}: {problem.strerror or problem}."
    ) from problem
