"""Changes of power state that libvirt tells of, from its event thread to whoever listens on our loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import libvirt

from kilonova.agent.driver import GuestEvent, PowerState
from kilonova.errors import KilonovaError

_TELLING = frozenset(
    (
        libvirt.VIR_DOMAIN_EVENT_STARTED,
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
        libvirt.VIR_DOMAIN_EVENT_RESUMED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED,
        libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED,
        libvirt.VIR_DOMAIN_EVENT_CRASHED,
        libvirt.VIR_DOMAIN_EVENT_UNDEFINED,
    )
)
_RETRY = 1.0


class Watch:
    """An event only says that a guest may have changed; its state is then asked for, so that late ones do no harm."""

    def __init__(self, power_of: Callable[[str], Awaitable[PowerState | None]]) -> None:
        self._power_of = power_of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._known: dict[str, PowerState] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._listeners: list[asyncio.Queue[GuestEvent]] = []

    def attach(self) -> None:
        self._loop = asyncio.get_running_loop()

    def detach(self) -> None:
        self._loop = None

    def register(self, handle: Any) -> None:
        """In a thread, with each new connection."""
        handle.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None)

    def know(self, uuid: str, power: PowerState) -> None:
        """What a guest was when we came: no event."""
        self._known[uuid] = power

    def look_at_all(self) -> None:
        for uuid in self._known:
            self._dirty[uuid] = None
        self._wake.set()

    async def run(self) -> None:
        """Ask for the state of each guest that may have changed. Runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                uuid = next(iter(self._dirty))
                del self._dirty[uuid]
                try:
                    power = await self._power_of(uuid)
                except KilonovaError:
                    self._dirty[uuid] = None
                    await asyncio.sleep(_RETRY)
                    continue
                self._found(uuid, power)

    async def events(self) -> AsyncIterator[GuestEvent]:
        queue: asyncio.Queue[GuestEvent] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    def _found(self, uuid: str, power: PowerState | None) -> None:
        if power is None:
            self._known.pop(uuid, None)
        elif self._known.get(uuid) != power:
            self._known[uuid] = power
            for queue in self._listeners:
                queue.put_nowait(GuestEvent(uuid=uuid, power_state=power))

    def _lifecycle(self, _handle: Any, domain: Any, event: int, _detail: int, _opaque: object) -> None:
        """In libvirt's event thread: must not call libvirt back."""
        loop = self._loop
        if event in _TELLING and loop is not None:
            # the loop may have been closed since
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._changed, domain.UUIDString())

    def _changed(self, uuid: str) -> None:
        self._dirty[uuid] = None
        self._wake.set()
