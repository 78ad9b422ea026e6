"""`Driver` on libvirt.

What a verb does to a guest stands in `guests`, its files in `disks`, its description in `domain_xml`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog

from kilonova.agent import configdrive
from kilonova.agent.driver import (
    ConsoleAddress,
    ConsoleKind,
    Defined,
    Guest,
    GuestEvent,
    ImageSource,
    ImageSpec,
    Inventory,
    PowerState,
    Progress,
    Secrets,
    ServerSpec,
)
from kilonova.agent.images import ImageCache
from kilonova.agent.libvirt import asking, domain_xml, guests, hardware, host
from kilonova.agent.libvirt.connection import Connection, keep_open
from kilonova.agent.libvirt.disks import BASE, MIB, Disks
from kilonova.agent.libvirt.events import Watch
from kilonova.agent.libvirt.nics import Nics
from kilonova.agent.libvirt.options import LibvirtOptions
from kilonova.agent.libvirt.screen import Screen
from kilonova.agent.libvirt.serial import SerialLines
from kilonova.agent.threads import Pool, in_thread
from kilonova.agent.tunnel import Tunnel
from kilonova.agent.wanted import wanted
from kilonova.errors import HostFailure, Invalid, KilonovaError, Transient
from kilonova.metadata.vendor import VendorData
from kilonova.world import World

T = TypeVar("T")
log = structlog.get_logger(__name__)

_POLL = 0.25
"""Seconds between looks at a guest that was told to power off."""
_PRESS_AGAIN = 10.0
"""Seconds after which the power button is pressed once more: a guest that still boots misses the first."""
_LETTING_GO = 20.0
"""Seconds that a guest gets to let go of a NIC before it is asked anew: one that still boots does not hear."""
_ENDING = 15.0
"""Seconds that a guest which is going down gets until it is off."""


class LibvirtDriver:
    """See `kilonova.agent.driver.Driver`."""

    def __init__(self, options: LibvirtOptions, world: World | None = None) -> None:
        self.options = options
        self._world = world or World()
        self._pool = Pool(options.threads, "libvirt")
        self._slow_pool = Pool(options.slow_threads, "libvirt-slow")
        self._abort_pool = Pool(1, "libvirt-abort")
        self._watch = Watch(self._power_of_ours)
        self._connection = Connection(
            options.uri, self._pool, timeout=options.call_timeout, on_open=self._watch.register
        )
        # libvirtd answers five calls of one connection at once: what takes long must not keep the rest waiting
        self._slow = Connection(options.uri, self._slow_pool, timeout=options.long_call_timeout)
        self._abort = Connection(options.uri, self._abort_pool, timeout=options.call_timeout)
        self._console_pool = Pool(options.threads, "libvirt-consoles")
        self._consoles = Connection(options.uri, self._console_pool, timeout=options.call_timeout)
        self._tunnel = Tunnel(self._world, options.serial_proxyclient_address)
        self._serial = SerialLines(self._consoles, options.deployment_id)
        self._disks = Disks(options.state_path, options.deployment_id)
        self._images = ImageCache(
            options.state_path / BASE,
            self._world,
            in_use=self._disks.bases_in_use,
            reserved_bytes=options.reserved_host_disk_mb * MIB,
            force_raw=options.force_raw_images,
        )
        self._nics = Nics(options.deployment_id, options.netns)
        self._vendor = VendorData(options.metadata)
        self._hardware: hardware.Hardware | None = None
        self._disk_cache = "none"
        self._tasks: list[asyncio.Task[None]] = []

    # -- the host

    async def start(self) -> None:
        try:
            await in_thread(self._prepare_files)
        except OSError as error:
            raise HostFailure(f"The directory {self.options.state_path} cannot be used: {error}.") from error
        self._watch.attach()
        self._hardware = await self._connection.call(
            "asking for capabilities", lambda handle: hardware.look(handle, self.options), timeout=60
        )
        for guest in await self.guests():
            if guest.deployment_id == self.options.deployment_id:
                self._watch.know(guest.uuid, guest.power_state)
        self._tasks = [
            asyncio.create_task(self._watch.run()),
            asyncio.create_task(keep_open(self._connection, self._reopened)),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        self._watch.detach()
        await self._tunnel.close()
        await self._vendor.close()
        for connection in (self._connection, self._slow, self._abort, self._consoles):
            await connection.close()
        for pool in (self._pool, self._slow_pool, self._abort_pool, self._console_pool):
            pool.close()

    async def inventory(self) -> Inventory:
        found = await self._hardware_known()
        return await self._connection.call(
            "taking the inventory", lambda handle: host.inventory(handle, self.options, found, self._disks)
        )

    async def guests(self) -> list[Guest]:
        return await self._connection.call("listing guests", guests.everything)

    def events(self) -> AsyncIterator[GuestEvent]:
        return self._watch.events()

    # -- building

    async def ensure_image(self, image: ImageSpec, source: ImageSource, token: str | None, progress: Progress) -> None:
        await self._images.ensure(image, source, token, progress)

    async def ensure_images_evicted(self, *, unused_for: float, free_bytes: int) -> list[str]:
        return await self._images.evict(unused_for=unused_for, free_bytes=free_bytes)

    async def ensure_disks(self, spec: ServerSpec) -> None:
        wanted(spec)
        base = None
        if spec.image is not None:
            base = await self._images.find(spec.image.id)
            if base is None and self._disks.missing(spec.uuid) is not None:
                raise Transient(
                    f"Image {spec.image.id} is not in the host's cache any more; it has to be fetched again."
                )
        path = self._images.path_of(spec.image.id) if spec.image is not None else None
        made = (base is not None or spec.image is None) and await self._disks.ensure(spec, base, path)
        if made and spec.image is not None:
            self._images.based(spec.image.id)

    async def ensure_config_drive(self, spec: ServerSpec, secrets: Secrets) -> None:
        await self._disks.ensure_directory(spec.uuid)
        path = self._disks.config_drive(spec.uuid)
        if await in_thread(path.exists):
            return
        facts = configdrive.facts_of(spec, secrets, dhcp_domain=self.options.dhcp_domain)
        facts = await configdrive.with_vendor_data(facts, self._vendor, spec)
        try:
            await in_thread(lambda: configdrive.write(path, facts))
        except OSError as error:
            raise HostFailure(f"The host cannot write the config drive of {spec.uuid}: {error.strerror}.") from error

    async def ensure_defined(self, spec: ServerSpec) -> Defined:
        found = await self._hardware_known()
        wishes = wanted(spec)
        if spec.machine_type is None and wishes.machine_type is not None and wishes.machine_type not in found.machines:
            raise Invalid(found.unknown_machine(wishes.machine_type))
        machine = found.machine(spec.machine_type or wishes.machine_type or self.options.machine_type or "pc")
        cpu = hardware.choose_cpu(self.options, found, spec.cpu_model)
        platform = domain_xml.Platform(
            arch=found.arch,
            virt_type=found.virt_type,
            emulator=found.emulator,
            machine=machine,
            cpu=cpu,
            disk_cache=self._disk_cache,
        )
        drives = await in_thread(lambda: self._disks.drives(spec.uuid))

        def define(handle: Any) -> None:
            known = guests.find(handle, spec.uuid, self.options.deployment_id)
            mark = guests.marks(known) if known is not None else None
            xml, new = domain_xml.build(
                spec,
                options=self.options,
                platform=platform,
                wanted=wishes,
                drives=drives,
                console_log=self._disks.console_log(spec.uuid),
                reboot=mark.reboot if mark is not None else "",
            )
            guests.define(handle, xml, new, spec.uuid)

        await self._connection.call(f"defining guest {spec.uuid}", define)
        return Defined(machine_type=machine, cpu_model=cpu.recorded)

    # -- network

    async def ensure_plugged(self, spec: ServerSpec) -> None:
        for nic in spec.nics:
            if nic.vif_type != "bridge":
                raise HostFailure(f"This host cannot plug port {nic.port_id}: its VIF type is '{nic.vif_type}'.")
        await in_thread(lambda: self._nics.plug(spec.uuid, spec.nics))

    async def ensure_unplugged(self, uuid: str, *, keep: Sequence[str] = ()) -> None:
        await in_thread(lambda: self._nics.unplug(uuid, keep))

    async def ensure_attached(self, spec: ServerSpec, port_id: str) -> None:
        (nic,) = (nic for nic in spec.nics if nic.port_id == port_id)
        await self.ensure_plugged(spec)
        xml = ET.tostring(domain_xml.interface(nic, wanted(spec)), encoding="unicode")
        await self._with("attaching to", spec.uuid, lambda domain: guests.attach_nic(domain, xml, nic.mac), long=True)
        await self.ensure_defined(spec)

    async def ensure_detached(self, spec: ServerSpec, port_id: str, mac: str) -> None:
        if await self.power_state(spec.uuid) is not PowerState.NOSTATE:
            await self.ensure_defined(spec)
            until = self._world.monotonic() + _LETTING_GO
            while await self._with("detaching from", spec.uuid, lambda domain: guests.detach_nic(domain, mac)):
                if self._world.monotonic() >= until:
                    raise Transient(f"The guest of server {spec.uuid} does not let go of port {port_id}.")
                await self._world.sleep(_POLL * 2)
        await in_thread(lambda: self._nics.unplug(spec.uuid, [nic.port_id for nic in spec.nics]))

    # -- power

    async def power_state(self, uuid: str) -> PowerState:
        def look(handle: Any) -> PowerState:
            domain = guests.find(handle, uuid, self.options.deployment_id)
            return PowerState.NOSTATE if domain is None else guests.view(domain).power

        return await self._connection.call(f"looking at guest {uuid}", look)

    async def ensure_running(self, uuid: str) -> None:
        def run(domain: Any) -> bool:
            now = guests.view(domain)
            if now.ending:
                return False
            if now.power is PowerState.PAUSED:
                guests.unpause(domain)
            elif now.power is not PowerState.RUNNING:
                if now.power is PowerState.CRASHED:
                    guests.cut_power(domain)
                missing = self._disks.missing(uuid)
                if missing is not None:
                    raise HostFailure(f"Server {uuid} cannot be started: {missing}.")
                guests.start(domain)
            return True

        if not await self._with("starting", uuid, run, long=True):
            await self._until_off(uuid, _ENDING)
            await self._with("starting", uuid, run, long=True)

    async def ensure_stopped(self, uuid: str, timeout: float) -> None:
        if timeout > 0:
            await self._power_button(uuid, timeout)
        await self._with("stopping", uuid, guests.cut_power, long=True)

    async def ensure_rebooted(self, uuid: str, *, hard: bool, marker: str, timeout: float) -> None:
        if not await self._with("rebooting", uuid, lambda domain: guests.note_reboot(domain, marker)):
            if not hard and timeout > 0:
                await self._power_button(uuid, timeout)
            await self._with("rebooting", uuid, guests.cut_power, long=True)
        await self.ensure_running(uuid)

    async def ensure_paused(self, uuid: str) -> None:
        await self._switch(uuid, PowerState.PAUSED, guests.pause, PowerState.RUNNING)

    async def ensure_unpaused(self, uuid: str) -> None:
        await self._switch(uuid, PowerState.RUNNING, guests.unpause, PowerState.PAUSED)

    async def ensure_suspended(self, uuid: str) -> None:
        saving = asyncio.ensure_future(
            self._switch(uuid, PowerState.SUSPENDED, guests.save, PowerState.RUNNING, PowerState.PAUSED)
        )
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            # over a connection of its own: the first one may be busy with what is to be stopped
            with contextlib.suppress(KilonovaError):
                await self._abort.call(f"stopping to save guest {uuid}", lambda handle: guests.abort_job(handle, uuid))
            await asyncio.wait({saving})
            raise

    async def ensure_resumed(self, uuid: str) -> None:
        await self.ensure_running(uuid)

    # -- removing

    async def ensure_absent(self, uuid: str) -> None:
        def remove(handle: Any) -> None:
            domain = guests.find(handle, uuid, self.options.deployment_id)
            if domain is not None:
                guests.cut_power(domain)
                guests.undefine(domain)

        await self._slow.call(f"removing guest {uuid}", remove)

    async def ensure_disks_absent(self, uuid: str, *, keep_console_log: bool = False) -> None:
        if await self.power_state(uuid) in (PowerState.RUNNING, PowerState.PAUSED):
            raise HostFailure(f"The disks of server {uuid} are in use: its guest runs.")
        await self._disks.remove(uuid, keep_console_log=keep_console_log)

    # -- asking

    async def console_output(self, uuid: str, lines: int | None) -> str:
        path = self._disks.console_log(uuid)
        return await in_thread(lambda: asking.console_tail(path, lines, self.options.console_log_bytes))

    async def diagnostics(self, uuid: str) -> dict[str, object]:
        virt_type = (await self._hardware_known()).virt_type
        return await self._with("asking", uuid, lambda domain: asking.diagnostics(domain, virt_type))

    async def console(self, uuid: str, kind: ConsoleKind, *, ticket: bool) -> ConsoleAddress:
        port = await self._with("asking", uuid, lambda domain: asking.console_port(domain, kind))
        if port is not None and self.options.netns is None:
            return ConsoleAddress(host=self.options.vnc_proxyclient_address, port=port)
        if port is not None:
            return await self._tunnel.address_of(
                Screen(self._consoles, uuid, self.options.deployment_id).serve, ticket=ticket
            )
        return await self._tunnel.address_of(partial(self._serial.serve, uuid), ticket=ticket)

    # -- inside

    async def _with(self, doing: str, uuid: str, do: Callable[[Any], T], *, long: bool = False) -> T:
        """`do` with our domain. Raises HostFailure when it is not defined."""

        def work(handle: Any) -> T:
            return do(guests.must_find(handle, uuid, self.options.deployment_id))

        return await (self._slow if long else self._connection).call(f"{doing} guest {uuid}", work)

    async def _switch(self, uuid: str, to: PowerState, do: Callable[[Any], None], *allowed: PowerState) -> None:
        def work(domain: Any) -> None:
            now = guests.view(domain).power
            if now is to:
                return
            if now not in allowed:
                states = " or ".join(state.name for state in allowed)
                raise HostFailure(f"Server {uuid} is {now.name} on this host; only {states} can become {to.name}.")
            do(domain)

        await self._with(f"to {to.name}:", uuid, work, long=True)

    async def _power_button(self, uuid: str, timeout: float) -> None:
        """Ask the guest to power off and wait until it did, at most `timeout` seconds. No wait if it cannot hear."""

        def press(domain: Any) -> bool:
            hears = guests.view(domain).power is PowerState.RUNNING
            if hears:
                guests.press_power_button(domain)
            return hears

        until = self._world.monotonic() + timeout
        while (left := until - self._world.monotonic()) > 0:
            try:
                if not await self._with("stopping", uuid, press) or await self._until_off(
                    uuid, min(left, _PRESS_AGAIN)
                ):
                    return
            except Transient:
                # libvirt is away: the guest may be going down all the same
                await self._world.sleep(_POLL * 4)

    async def _until_off(self, uuid: str, timeout: float) -> bool:
        until = self._world.monotonic() + timeout
        while True:
            if await self._with("looking at", uuid, lambda domain: not guests.view(domain).active):
                return True
            if self._world.monotonic() >= until:
                return False
            await self._world.sleep(_POLL)

    async def _hardware_known(self) -> hardware.Hardware:
        if self._hardware is None:
            raise Transient("The host's agent has not started yet.")
        return self._hardware

    async def _power_of_ours(self, uuid: str) -> PowerState | None:
        """For events: None when the guest is none of ours, or is gone."""

        def look(handle: Any) -> PowerState | None:
            domain = guests.find(handle, uuid, self.options.deployment_id)
            return None if domain is None else guests.view(domain).power

        return await self._connection.call(f"looking at guest {uuid}", look)

    def _reopened(self) -> None:
        """What happened while libvirt was away nobody told us: look at every guest."""
        log.info("libvirt.reconnected", uri=self.options.uri)
        self._watch.look_at_all()

    def _prepare_files(self) -> None:
        base = self.options.state_path / BASE
        base.mkdir(parents=True, exist_ok=True)
        self._disks.sweep()
        self._disk_cache = "none" if _direct_io(self.options.state_path / f".direct-{os.getpid()}") else "writeback"


def _direct_io(probe: Any) -> bool:
    """Whether the file system can bypass the page cache, which guests' disks then do."""
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600))
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
    return True
