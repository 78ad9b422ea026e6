"""The driver of a simulated host. Its guests do what guests of a hypervisor would, as quickly as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

import msgspec

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
    Resource,
    Secrets,
    ServerSpec,
    dedicated,
)
from kilonova.agent.sim.cells import even_cells
from kilonova.agent.sim.counters import counted
from kilonova.agent.sim.download import Download
from kilonova.agent.sim.screen import line, screen
from kilonova.agent.sim.script import NOTHING, Script, Wishes, wishes
from kilonova.agent.sim.state import CachedImage, SimGuest, SimHost, SimState
from kilonova.agent.tunnel import Tunnel
from kilonova.errors import Conflict, HostFailure, Invalid
from kilonova.numa import Cell
from kilonova.pci import PciDevice
from kilonova.world import World

_ON = (PowerState.RUNNING, PowerState.PAUSED)
_KEPT_GONE = 10_000
"""Gone guests per host whose counts are kept."""


class SimOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated host. Memory in MiB, disk in GiB, durations in seconds by verb (see script.py)."""

    vcpus: int = 64
    memory_mb: int = 262_144
    local_gb: int = 4_000
    host_ip: str = "127.0.0.1"
    traits: tuple[str, ...] = ("HW_CPU_X86_VMX", "COMPUTE_NODE")
    supported: tuple[tuple[str, str, str], ...] = (
        ("x86_64", "sim", "hvm"),
        ("x86_64", "qemu", "hvm"),
        ("x86_64", "kvm", "hvm"),
    )
    resources: dict[str, Resource] = {}
    metrics: dict[str, float] = {}
    pci_devices: tuple[PciDevice, ...] = ()
    cells: tuple[Cell, ...] = ()
    """Instead of the one that all is in otherwise; their shared CPUs are counted, not `vcpus`."""
    durations: dict[str, float] = {}
    time_scale: float = 1.0
    download_images: bool = False
    """Read images from their source and verify them, instead of believing that they are there."""
    machine_type: str = "sim-1.0"
    cpu_model: str = "sim-cpu"


class SimDriver:
    """See `kilonova.agent.driver.Driver`. Without `state` nothing outlives the object."""

    def __init__(
        self,
        options: SimOptions,
        world: World,
        *,
        host: str = "sim-0001",
        state: SimState | None = None,
        script: Script | None = None,
    ) -> None:
        self.host = host
        self.options = options
        self.script = script
        self._world = world
        self._state = state
        self._host = SimHost()
        self._tunnel = Tunnel(world, options.host_ip)

    async def start(self) -> None:
        if self._state is not None:
            self._host = await self._state.host(self.host)

    async def close(self) -> None:
        await self._tunnel.close()

    async def inventory(self) -> Inventory:
        options = self.options
        return Inventory(
            hypervisor_type="sim",
            hypervisor_version=1_000_000,
            hypervisor_hostname=self.host,
            vcpus=sum(len(cell.cpus) for cell in options.cells) or options.vcpus,
            memory_mb=options.memory_mb,
            local_gb=options.local_gb,
            cpu_info={"arch": "x86_64", "model": options.cpu_model, "features": []},
            traits=options.traits,
            supported=options.supported,
            resources=options.resources | dedicated(options.cells),
            cells=options.cells or even_cells(1, options.vcpus, options.memory_mb),
            pci_devices=options.pci_devices,
            metrics=options.metrics,
            host_ip=options.host_ip,
        )

    async def guests(self) -> list[Guest]:
        return [
            Guest(
                uuid=guest.uuid,
                name=guest.spec.name,
                power_state=PowerState(guest.power_state),
                deployment_id=guest.spec.deployment_id,
            )
            for guest in self._host.guests.values()
            if guest.defined and guest.spec is not None
        ]

    async def events(self) -> AsyncIterator[GuestEvent]:
        queue: asyncio.Queue[GuestEvent] = asyncio.Queue()
        self._host.watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._host.watchers.remove(queue)

    async def ensure_image(self, image: ImageSpec, source: ImageSource, token: str | None, progress: Progress) -> None:
        known = self._host.images.get(image.id)
        if known is None:
            wish = wishes(self.host, None, image)
            await self._before("image", image.id, wish, call=1)
            if self.options.download_images:
                download = self._host.downloads.get(image.id)
                if download is None or download.ended:
                    download = self._host.downloads[image.id] = Download(image, source, token)
                await download.wait(progress)
        now = self._world.now().timestamp()
        if known is None or now - known.used > 60.0:
            self._host.images[image.id] = cached = CachedImage(image.size, now)
            if self._state is not None:
                await self._state.save_image(self.host, image.id, cached)
        if known is None:
            await self._after("image", image.id, wish, call=1)
        await progress("image", 100)

    async def ensure_disks(self, spec: ServerSpec) -> None:
        wishes(self.host, spec)
        needed = _disk_gb(spec.image)
        if spec.root_gb and needed > spec.root_gb:
            raise Invalid(f"The image needs a disk of {needed} GiB; the flavor's has {spec.root_gb} GiB.")
        guest = self._guest(spec)
        async with self._verb("disks", guest):
            if not guest.disks:
                guest.disks = True
                await self._did("disks", guest)

    async def ensure_config_drive(self, spec: ServerSpec, secrets: Secrets) -> None:
        guest = self._guest(spec)
        async with self._verb("config_drive", guest):
            if not guest.config_drive:
                guest.config_drive = True
                await self._did("config_drive", guest)

    async def ensure_defined(self, spec: ServerSpec) -> Defined:
        guest = self._guest(spec)
        async with self._verb("defined", guest):
            nics = [nic.port_id for nic in spec.nics]
            if not guest.defined:
                guest.defined = True
                guest.power_state = PowerState.SHUTDOWN
                guest.nics = nics
                await self._did("defined", guest)
            elif guest.nics != nics and guest.power_state not in _ON:
                guest.nics = nics
                await self._store(guest)
        return Defined(
            machine_type=spec.machine_type or self.options.machine_type,
            cpu_model=spec.cpu_model or self.options.cpu_model,
        )

    async def ensure_plugged(self, spec: ServerSpec) -> None:
        guest = self._guest(spec)
        async with self._verb("plugged", guest):
            missing = [nic.port_id for nic in spec.nics if nic.port_id not in guest.taps]
            if missing:
                guest.taps = [*guest.taps, *missing]
                await self._did("plugged", guest)

    async def ensure_unplugged(self, uuid: str, *, keep: Sequence[str] = ()) -> None:
        guest = self._host.guests.get(uuid)
        if guest is None or set(guest.taps) <= set(keep):
            return
        async with self._verb("unplugged", guest):
            guest.taps = [port for port in guest.taps if port in keep]
            await self._did("unplugged", guest)

    async def ensure_attached(self, spec: ServerSpec, port_id: str) -> None:
        guest = self._guest(spec)
        async with self._verb("attached", guest):
            if port_id not in guest.taps or port_id not in guest.nics:
                guest.taps = [*[port for port in guest.taps if port != port_id], port_id]
                guest.nics = [*[port for port in guest.nics if port != port_id], port_id]
                mac = next(nic.mac for nic in spec.nics if nic.port_id == port_id)
                self._say(guest, f"nic added {mac}")
                await self._did("attached", guest)

    async def ensure_detached(self, spec: ServerSpec, port_id: str, mac: str) -> None:
        guest = self._guest(spec)
        async with self._verb("detached", guest):
            if port_id in guest.taps or port_id in guest.nics:
                guest.taps = [port for port in guest.taps if port != port_id]
                guest.nics = [port for port in guest.nics if port != port_id]
                self._say(guest, f"nic removed {mac}")
                await self._did("detached", guest)

    async def power_state(self, uuid: str) -> PowerState:
        guest = self._host.guests.get(uuid)
        return PowerState(guest.power_state) if guest is not None and guest.defined else PowerState.NOSTATE

    async def ensure_running(self, uuid: str) -> None:
        guest = self._defined(uuid)
        async with self._verb("running", guest):
            if guest.power_state not in _ON:
                self._boot(guest)
                await self._did("running", guest)

    async def ensure_stopped(self, uuid: str, timeout: float) -> None:
        guest = self._defined(uuid)
        async with self._verb("stopped", guest):
            if guest.power_state != PowerState.SHUTDOWN:
                if guest.power_state == PowerState.RUNNING and self._wishes(guest).ignores_shutdown:
                    await self._world.sleep(timeout * self.options.time_scale)
                guest.power_state = PowerState.SHUTDOWN
                await self._did("stopped", guest)

    async def ensure_rebooted(self, uuid: str, *, hard: bool, marker: str, timeout: float) -> None:
        guest = self._defined(uuid)
        async with self._verb("rebooted", guest):
            if guest.boot_marker != marker:
                if not hard and self._wishes(guest).ignores_shutdown:
                    await self._world.sleep(timeout * self.options.time_scale)
                self._boot(guest)
                guest.boot_marker = marker
                await self._did("rebooted", guest)
            elif guest.power_state != PowerState.RUNNING:
                self._boot(guest)
                await self._did("running", guest)

    async def ensure_paused(self, uuid: str) -> None:
        await self._switch("paused", uuid, PowerState.PAUSED, (PowerState.RUNNING,))

    async def ensure_unpaused(self, uuid: str) -> None:
        await self._switch("unpaused", uuid, PowerState.RUNNING, (PowerState.PAUSED,))

    async def ensure_suspended(self, uuid: str) -> None:
        await self._switch("suspended", uuid, PowerState.SUSPENDED, _ON)

    async def ensure_resumed(self, uuid: str) -> None:
        await self._switch("resumed", uuid, PowerState.RUNNING, (PowerState.SUSPENDED, PowerState.SHUTDOWN))

    async def ensure_absent(self, uuid: str) -> None:
        guest = self._host.guests.get(uuid)
        if guest is None:
            return
        async with self._verb("absent", guest):
            if guest.defined:
                guest.defined = False
                guest.nics = []
                guest.power_state = PowerState.NOSTATE
                await self._did("absent", guest)

    async def ensure_disks_absent(self, uuid: str, *, keep_console_log: bool = False) -> None:
        guest = self._host.guests.get(uuid)
        if guest is None:
            return
        async with self._verb("disks_absent", guest):
            if guest.disks or guest.config_drive or (guest.console and not keep_console_log):
                guest.disks = guest.config_drive = False
                if not keep_console_log:
                    guest.console = ""
                await self._did("disks_absent", guest)
                await self._forget_oldest()

    async def ensure_images_evicted(self, *, unused_for: float, free_bytes: int) -> list[str]:
        used = {g.spec.image.id for g in self._host.guests.values() if g.disks and g.spec and g.spec.image}
        now = self._world.now().timestamp()
        free = self.options.local_gb * 1024**3 - sum(image.size for image in self._host.images.values())
        evicted = []
        for image_id, image in sorted(self._host.images.items(), key=lambda item: item[1].used):
            if image_id not in used and (now - image.used >= unused_for or free < free_bytes):
                del self._host.images[image_id]
                free += image.size
                evicted.append(image_id)
                if self._state is not None:
                    await self._state.forget_image(self.host, image_id)
        return evicted

    async def console_output(self, uuid: str, lines: int | None) -> str:
        text = self._defined(uuid).console
        return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:] if lines > 0 else [])

    async def diagnostics(self, uuid: str) -> dict[str, object]:
        guest = self._defined(uuid)
        spec = guest.spec
        assert spec is not None
        return counted(spec, PowerState(guest.power_state))

    async def console(self, uuid: str, kind: ConsoleKind, *, ticket: bool) -> ConsoleAddress:
        guest = self._defined(uuid)
        if guest.power_state not in _ON:
            raise Conflict(f"Server {uuid} is off.")
        name = guest.spec.display_name if guest.spec else uuid
        serve = partial(screen, name) if kind == "vnc" else partial(line, partial(self._say, guest))
        return await self._tunnel.address_of(serve, ticket=ticket)

    # -- what tests and the kill harness do and ask

    async def guest_changes(self, uuid: str, power_state: PowerState) -> None:
        """The guest powers off, crashes or comes back by itself."""
        guest = self._defined(uuid)
        guest.power_state = power_state
        await self._store(guest)
        self._tell(guest)

    def effects(self, uuid: str) -> dict[str, int]:
        """How many times each verb changed something of this server, also after it is gone."""
        guest = self._host.guests.get(uuid)
        return {} if guest is None else dict(guest.effects)

    def taps(self, uuid: str) -> list[str]:
        """Ports of a server that are plugged here."""
        guest = self._host.guests.get(uuid)
        return [] if guest is None else list(guest.taps)

    def left(self) -> list[str]:
        """What exists of any server: '<what> <server>'."""
        return self._host.left()

    # -- inside

    def _guest(self, spec: ServerSpec) -> SimGuest:
        guest = self._host.guests.setdefault(spec.uuid, SimGuest(uuid=spec.uuid))
        guest.spec = spec
        return guest

    def _defined(self, uuid: str) -> SimGuest:
        guest = self._host.guests.get(uuid)
        if guest is None or not guest.defined:
            raise HostFailure(f"Server {uuid} is not defined on host '{self.host}'.")
        return guest

    def _wishes(self, guest: SimGuest) -> Wishes:
        try:
            return wishes(self.host, guest.spec)
        except Invalid:
            # Said when its disks were made; what was built all the same has to be removable.
            return NOTHING

    def _boot(self, guest: SimGuest) -> None:
        """Raises HostFailure for what a hypervisor would not start."""
        if not guest.disks:
            raise HostFailure(f"The disks of server {guest.uuid} are missing on host '{self.host}'.")
        if not set(guest.nics) <= set(guest.taps):
            raise HostFailure(f"Not all ports of server {guest.uuid} are plugged on host '{self.host}'.")
        guest.power_state = PowerState.RUNNING
        hostname = guest.spec.hostname if guest.spec else guest.uuid
        self._say(guest, f"Simulated guest on {self.host}\nguest ready {hostname}")

    def _say(self, guest: SimGuest, text: str) -> None:
        if guest.power_state == PowerState.RUNNING:
            guest.console = f"{guest.console}{text}\n"[-65_536:]

    async def _switch(self, verb: str, uuid: str, to: PowerState, allowed: tuple[PowerState, ...]) -> None:
        guest = self._defined(uuid)
        async with self._verb(verb, guest):
            if guest.power_state != to:
                if guest.power_state not in allowed:
                    state = PowerState(guest.power_state).name
                    raise HostFailure(f"Server {uuid} cannot be {verb} on host '{self.host}': it is {state}.")
                if guest.power_state == PowerState.SHUTDOWN:
                    self._boot(guest)
                guest.power_state = to
                await self._did(verb, guest)

    @contextlib.asynccontextmanager
    async def _verb(self, verb: str, guest: SimGuest) -> AsyncIterator[None]:
        call = guest.calls.get(verb, 0) + 1
        guest.calls = guest.calls | {verb: call}
        wish = self._wishes(guest)
        power = guest.power_state
        await self._before(verb, guest.uuid, wish, call)
        yield
        if guest.power_state != power:
            self._tell(guest)
        await self._after(verb, guest.uuid, wish, call)

    async def _before(self, verb: str, uuid: str, wish: Wishes, call: int) -> None:
        if self.script is not None:
            await self.script.before(self.host, verb, uuid)
        wait = self.options.durations.get(verb, 0.0) + wish.block_for.get(verb, 0.0)
        if wait > 0:
            await self._world.sleep(wait * self.options.time_scale * wish.time_scale)
        if fault := wish.fail_at.get(verb):
            fault.strike(call, "before")

    async def _after(self, verb: str, uuid: str, wish: Wishes, call: int) -> None:
        if self.script is not None:
            await self.script.after(self.host, verb, uuid)
        if fault := wish.fail_after.get(verb):
            fault.strike(call, "after")

    async def _did(self, verb: str, guest: SimGuest) -> None:
        """Count an effect and keep it."""
        guest.effects = guest.effects | {verb: guest.effects.get(verb, 0) + 1}
        await self._store(guest)

    async def _store(self, guest: SimGuest) -> None:
        if self._state is not None:
            await self._state.save(self.host, guest)

    def _tell(self, guest: SimGuest) -> None:
        for queue in self._host.watchers:
            queue.put_nowait(GuestEvent(uuid=guest.uuid, power_state=PowerState(guest.power_state)))

    async def _forget_oldest(self) -> None:
        if len(self._host.guests) > _KEPT_GONE:
            oldest = next((g for g in self._host.guests.values() if not (g.defined or g.disks or g.config_drive)), None)
            if oldest is not None:
                del self._host.guests[oldest.uuid]
                if self._state is not None:
                    await self._state.forget(self.host, oldest.uuid)


def _disk_gb(image: ImageSpec | None) -> int:
    """GiB that the image is known to need."""
    if image is None:
        return 0
    return max(image.min_disk_gb, -(-image.size // 1024**3) if image.disk_format == "raw" else 0)
