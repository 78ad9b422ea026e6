"""What a hypervisor driver does: idempotent `ensure_*` verbs on one host.

Each verb looks first and changes only what is not yet so; called twice, or
called again after a crash at any point within it, it ends in the same state.
Verbs of one server never run side by side (the agent's journal serialises
them); verbs of different servers do. Blocking work goes to threads.

Errors: `HostFailure` when this host cannot (another may), `Invalid` when no
host could (a damaged image), `Transient` when a later attempt may succeed.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal, Protocol

import msgspec

from kilonova.nic import Nic
from kilonova.numa import PCPU, Cell, Placed
from kilonova.pci import PciDevice

Progress = Callable[[str, int], Awaitable[None]]
"""Called with a stage's name and its per cent (0-100)."""
ConsoleKind = Literal["vnc", "serial"]


class PowerState(enum.IntEnum):
    """The figures of the Compute API (`OS-EXT-STS:power_state`)."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


class ImageSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What verifies an image's bytes, in the terms of its `img_signature*` properties; see `kilonova.signatures`."""

    value: str
    """Base64."""
    hash_method: str
    key_type: str
    certificate: str = ""
    """PEM."""


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The image a root disk is made from. `size` in bytes; the hash as Glance states it (None: not verified)."""

    id: str
    size: int
    disk_format: str
    container_format: str = "bare"
    hash_algo: str | None = None
    hash_value: str | None = None
    min_disk_gb: int = 0
    properties: dict[str, str] = {}
    signature: ImageSignature | None = None
    """To be verified before anything is made of the image; None: nobody asks for it."""


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a host needs to know to build one server. Holds no secrets (see `Secrets`)."""

    uuid: str
    name: str
    """The domain's name on the hypervisor, e.g. `instance-0000002a`."""
    display_name: str
    hostname: str
    project_id: str
    user_id: str
    deployment_id: str
    """Only what carries our deployment's id is ever destroyed."""
    vcpus: int
    memory_mb: int
    root_gb: int
    """0: as large as the image."""
    ephemeral_gb: int = 0
    swap_mb: int = 0
    flavor_name: str = ""
    extra_specs: dict[str, str] = {}
    image: ImageSpec | None = None
    config_drive: bool = False
    availability_zone: str | None = None
    metadata: dict[str, str] = {}
    key_name: str | None = None
    public_key: str | None = None
    key_type: str = "ssh"
    user_data: str | None = None
    """Base64, as the API takes it."""
    launch_index: int = 0
    reservation_id: str = ""
    files: dict[str, str] = {}
    """Injected files: path to base64 contents (API below 2.57); they go on the config drive."""
    machine_type: str | None = None
    cpu_model: str | None = None
    """Recorded at creation; None lets the driver choose and report (see `Defined`)."""
    nics: tuple[Nic, ...] = ()
    """In the order in which the guest sees them."""
    pci_devices: tuple[str, ...] = ()
    """Addresses of the host's devices that are the guest's."""
    numa: tuple[Placed, ...] = ()
    """Where its cells lie; none: it has none of its own."""


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Handed along with a command, kept in memory only."""

    admin_password: str | None = None
    image_token: str | None = None
    """A short-lived token of the service user for downloading from Image."""


class Defined(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver chose for a new guest, to be recorded with the server."""

    machine_type: str | None = None
    cpu_model: str | None = None


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A guest as the hypervisor shows it."""

    uuid: str
    name: str
    power_state: PowerState
    deployment_id: str | None
    """None: not one of ours, never touched."""


class GuestEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of power state that nobody may have asked for."""

    uuid: str
    power_state: PowerState


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """An amount that a host has of a resource class."""

    total: int
    reserved: int = 0
    allocation_ratio: float = 1.0

    @property
    def max(self) -> int:
        return int((self.total - self.reserved) * self.allocation_ratio)


def dedicated(cells: Sequence[Cell]) -> dict[str, Resource]:
    """The CPUs that servers may have for themselves, as a host reports them."""
    count = sum(len(cell.dedicated) for cell in cells)
    return {PCPU: Resource(total=count)} if count else {}


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What the host has in all, before ratios and reservations. Memory in MiB, disk in GiB."""

    hypervisor_type: str
    hypervisor_version: int
    """As libvirt gives it: 1_000_000 * major + 1_000 * minor + release."""
    hypervisor_hostname: str
    vcpus: int
    memory_mb: int
    local_gb: int
    cpu_info: dict[str, object] = {}
    traits: tuple[str, ...] = ()
    supported: tuple[tuple[str, str, str], ...] = ()
    """(architecture, hypervisor type, VM mode) of guests that it can run."""
    resources: dict[str, Resource] = {}
    """Other resource classes, e.g. CUSTOM_GPU."""
    pci_devices: tuple[PciDevice, ...] = ()
    """Those that the host gives away."""
    cells: tuple[Cell, ...] = ()
    metrics: dict[str, float] = {}
    """What monitors measured, by name."""
    host_ip: str = "127.0.0.1"
    uptime: str | None = None
    disk_available_least: int | None = None


class ConsoleAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a guest's screen or serial line is, as console proxies reach it."""

    host: str
    port: int
    ticket: str | None = None
    """To be said first, on a line of its own. None: the port is the guest's itself."""


class ImageSource(Protocol):
    """Where images come from; `clients.image.ImageClient` or a test's own."""

    def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        """The image's bytes from `offset` on. Raises Transient, or Invalid when the image is gone."""
        ...


class Driver(Protocol):
    """One host's hypervisor. `uuid` is always the server's."""

    async def start(self) -> None:
        """Connect; adopt what runs. Guests that run are never disturbed."""

    async def close(self) -> None: ...

    async def inventory(self) -> Inventory: ...

    async def guests(self) -> list[Guest]:
        """All guests, defined or running, ours and others'."""
        ...

    def events(self) -> AsyncIterator[GuestEvent]: ...

    # -- building
    async def ensure_image(self, image: ImageSpec, source: ImageSource, token: str | None, progress: Progress) -> None:
        """The image is in the host's cache, verified. Concurrent callers share one download."""

    async def ensure_disks(self, spec: ServerSpec) -> None:
        """Root, ephemeral and swap disks exist; existing ones are kept."""

    async def ensure_config_drive(self, spec: ServerSpec, secrets: Secrets) -> None: ...

    async def ensure_defined(self, spec: ServerSpec) -> Defined: ...

    # -- network
    async def ensure_plugged(self, spec: ServerSpec) -> None:
        """Every NIC's bridge and tap exist, the tap is in the bridge; whoever wires ports finds them by name."""

    async def ensure_unplugged(self, uuid: str, *, keep: Sequence[str] = ()) -> None:
        """No tap of the server is left but those of the ports `keep`."""

    async def ensure_attached(self, spec: ServerSpec, port_id: str) -> None:
        """The NIC of `spec` with this port is plugged, in the guest's definition and in the guest that runs."""

    async def ensure_detached(self, spec: ServerSpec, port_id: str, mac: str) -> None:
        """The guest has no NIC with this port any more, and its tap is gone. `spec` is without it.

        Raises Transient while a running guest has not let go of it.
        """

    # -- power
    async def power_state(self, uuid: str) -> PowerState: ...

    async def ensure_running(self, uuid: str) -> None: ...

    async def ensure_stopped(self, uuid: str, timeout: float) -> None:
        """Ask the guest to power off; after `timeout` seconds (0: at once) cut the power."""

    async def ensure_rebooted(self, uuid: str, *, hard: bool, marker: str, timeout: float) -> None:
        """Exactly one reboot per `marker`, which is remembered with the guest.

        Soft falls back to hard after `timeout` seconds.
        """

    async def ensure_paused(self, uuid: str) -> None: ...

    async def ensure_unpaused(self, uuid: str) -> None: ...

    async def ensure_suspended(self, uuid: str) -> None: ...

    async def ensure_resumed(self, uuid: str) -> None: ...

    # -- removing
    async def ensure_absent(self, uuid: str) -> None:
        """The guest is off and no longer defined. Its disks stay."""

    async def ensure_disks_absent(self, uuid: str, *, keep_console_log: bool = False) -> None: ...

    async def ensure_images_evicted(self, *, unused_for: float, free_bytes: int) -> list[str]:
        """Drop cached images unused for that many seconds, and as many more (oldest first) as free space needs."""
        ...

    # -- asking
    async def console_output(self, uuid: str, lines: int | None) -> str: ...

    async def diagnostics(self, uuid: str) -> dict[str, object]:
        """The standard document of the Compute API (2.48); under `legacy` what earlier versions show."""
        ...

    async def console(self, uuid: str, kind: ConsoleKind, *, ticket: bool) -> ConsoleAddress:
        """Where it is now. `ticket`: make one, where one is needed, good for one connection.

        Raises Conflict while the guest is off, Invalid when it has no such console.
        """
        ...
