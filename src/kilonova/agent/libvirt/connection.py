"""The way to libvirt: its event loop in a daemon thread, calls in a bounded pool, connections made anew when lost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt
import structlog

from kilonova.agent.threads import Pool
from kilonova.errors import HostFailure, Transient

T = TypeVar("T")
log = structlog.get_logger(__name__)

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_COUNT = 4
_LOST = (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_ERR_NO_CONNECT)
# Another libvirt on this machine was faster; libvirt takes the next port when asked again.
_PORT_TAKEN = "Failed to find an available port"
_LATER = (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY, libvirt.VIR_ERR_AGENT_UNRESPONSIVE)


@functools.cache
def _start_event_loop() -> None:
    """Once per process, before its first connection."""
    # errors arrive as exceptions; the binding would print each one as well
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def serve() -> None:
        while True:
            with contextlib.suppress(libvirt.libvirtError):
                libvirt.virEventRunDefaultImpl()

    threading.Thread(target=serve, name="libvirt-events", daemon=True).start()


def explain(error: libvirt.libvirtError) -> str:
    """What libvirt says, on one line."""
    return " ".join((error.get_error_message() or str(error)).split())


class Connection:
    """A connection to one libvirt, opened when first needed and again after it was lost.

    `on_open` is called in a thread with each new connection, for callbacks to be registered on it.
    """

    def __init__(self, uri: str, pool: Pool, *, timeout: float, on_open: Callable[[Any], None] | None = None) -> None:
        self.uri = uri
        self._pool = pool
        self._timeout = timeout
        self._on_open = on_open
        self._handle: Any = None
        self._opening = threading.Lock()
        self._closed = False

    async def call(self, what: str, do: Callable[[Any], T], *, timeout: float | None = None) -> T:
        """`do` with the libvirt connection, in a thread. `what` names it in errors.

        Raises Transient when libvirt is away or busy, HostFailure for what else it says; `do` sees libvirtError first.
        """

        def work() -> T:
            handle = self._ready()
            try:
                return do(handle)
            except libvirt.libvirtError as error:
                raise self._translated(what, error, handle) from error

        return await self._pool.run(work, deadline=timeout or self._timeout, what=f"{what}: libvirt on this host")

    async def close(self) -> None:
        self._closed = True
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(Transient):
                await self._pool.run(lambda: _close(handle), deadline=5, what="libvirt")

    @property
    def is_open(self) -> bool:
        return self._handle is not None

    def _ready(self) -> Any:
        handle = self._handle
        if handle is not None:
            return handle
        with self._opening:
            if self._handle is None:
                if self._closed:
                    raise Transient("The connection to libvirt is closed.")
                _start_event_loop()
                try:
                    handle = libvirt.open(self.uri)
                    handle.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
                    handle.registerCloseCallback(self._lost, None)
                    if self._on_open is not None:
                        self._on_open(handle)
                except libvirt.libvirtError as error:
                    raise Transient(f"libvirt on this host cannot be reached: {explain(error)}") from error
                self._handle = handle
            return self._handle

    def _lost(self, handle: Any, reason: int, _opaque: object) -> None:
        """In the event thread: only note it. The old object stays valid for calls that still hold it."""
        if self._handle is handle:
            self._handle = None
        log.warning("libvirt.connection_lost", uri=self.uri, reason=reason)

    def _translated(self, what: str, error: libvirt.libvirtError, handle: Any) -> HostFailure | Transient:
        code = error.get_error_code()
        message = f"{what}: {explain(error)}"
        if code in _LOST or not _alive(handle):
            if self._handle is handle:
                self._handle = None
            return Transient(f"{what}: the connection to libvirt on this host was lost: {explain(error)}")
        if code in _LATER or _PORT_TAKEN in message:
            return Transient(message)
        if error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
            return Transient(message)
        return HostFailure(message)


def _alive(handle: Any) -> bool:
    try:
        return bool(handle.isAlive())
    except libvirt.libvirtError:
        return False


def _close(handle: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        handle.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        handle.close()


async def keep_open(connection: Connection, on_reopened: Callable[[], None]) -> None:
    """Open the connection again whenever it is lost, so that events flow. Runs until cancelled."""
    was_open = connection.is_open
    while True:
        await asyncio.sleep(1.0)
        if not connection.is_open:
            was_open = False
        if not was_open:
            with contextlib.suppress(Transient, HostFailure):
                await connection.call("connecting", lambda handle: handle.getLibVersion())
                was_open = True
                on_reopened()
