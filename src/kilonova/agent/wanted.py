"""What flavors and images ask of the virtual hardware: honoured, or refused by name; never ignored.

Names are the ones operators know (`hw:*` extra specs, `hw_*` image properties). A flavor's word goes before an
image's. What only the scheduler reads (traits, resources, aggregates) passes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kilonova.agent.driver import ServerSpec
from kilonova.errors import Invalid

DISK_BUSES = ("virtio", "scsi", "sata", "ide")
VIDEO_MODELS = ("vga", "cirrus", "virtio", "bochs", "qxl", "none")
WATCHDOG_ACTIONS = ("disabled", "none", "pause", "poweroff", "reset")
VIF_MODELS = ("virtio", "e1000", "e1000e", "rtl8139", "ne2k_pci", "pcnet")
_TRUE = ("1", "t", "true", "on", "y", "yes")
_FALSE = ("0", "f", "false", "off", "n", "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    sockets: int
    cores: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The virtual hardware of one server beyond its size."""

    topology: Topology
    machine_type: str | None = None
    disk_bus: str = "virtio"
    cdrom_bus: str | None = None
    """None: what the machine type offers to every guest."""
    video_model: str = "vga"
    vif_model: str = "virtio"
    watchdog: str = "disabled"
    rng: bool = True
    usb_tablet: bool = False
    boot_menu: bool = False
    hpet: bool = False
    guest_agent: bool = False
    hide_hypervisor: bool = False


def wanted(spec: ServerSpec) -> Wanted:
    """As `read_wanted`, of a server that is to be built."""
    return read_wanted(spec.vcpus, spec.extra_specs, spec.image.properties if spec.image is not None else {})


def read_wanted(vcpus: int, extra_specs: Mapping[str, str], properties: Mapping[str, str]) -> Wanted:
    """Read a flavor and an image. Raises Invalid, naming the setting, its value and what is accepted."""
    asked = _Asked(extra_specs, properties)
    result = Wanted(
        topology=_topology(vcpus, asked),
        machine_type=asked.text("machine_type"),
        disk_bus=asked.one_of("disk_bus", DISK_BUSES) or "virtio",
        cdrom_bus=asked.one_of("cdrom_bus", DISK_BUSES),
        video_model=asked.one_of("video_model", VIDEO_MODELS) or "vga",
        vif_model=asked.one_of("vif_model", VIF_MODELS) or "virtio",
        watchdog=asked.one_of("watchdog_action", WATCHDOG_ACTIONS) or "disabled",
        rng=asked.flag("hw_rng:allowed", True),
        usb_tablet=asked.one_of("pointer_model", ("usbtablet", "ps2mouse")) == "usbtablet"
        or asked.one_of("input_bus", ("usb", "virtio")) == "usb",
        boot_menu=asked.flag("boot_menu", False),
        hpet=asked.flag("time_hpet", False),
        guest_agent=asked.flag("qemu_guest_agent", False),
        hide_hypervisor=asked.flag("hide_hypervisor_id", False),
    )
    # settings of which one value is what every guest gets anyway
    asked.only("firmware_type", "bios")
    asked.only("rng_model", "virtio")
    asked.only("scsi_model", "virtio-scsi")
    asked.only("serial_port_count", "1")
    asked.only("architecture", "x86_64")
    asked.only("mem_encryption", *_FALSE)
    asked.only("vif_multiqueue_enabled", *_FALSE)
    asked.only("emulator_threads_policy", "share")
    asked.only("secure_boot", "disabled", "optional")
    asked.only("require_quiesce", *_FALSE)
    asked.only("vm_mode", "hvm")
    asked.only("pci_numa_affinity_policy", "legacy", "preferred")
    # claimed by the conductor
    asked.text("pci_passthrough:alias")
    for name in ("cpu_policy", "cpu_thread_policy", "numa_nodes", "mem_page_size"):
        asked.text(name)
    asked.texts("numa_cpus.")
    asked.texts("numa_mem.")
    # these ask nothing of a guest that is not being rescued
    asked.text("rescue_bus")
    asked.text("rescue_device")
    asked.refuse_rest()
    return result


class _Asked:
    """The settings that concern the hardware, each ticked off when it is read."""

    def __init__(self, extra_specs: Mapping[str, str], properties: Mapping[str, str]) -> None:
        self._settings: dict[str, tuple[str, str]] = {}
        for source, items in (("image property", properties), ("flavor extra spec", extra_specs)):
            for key, value in items.items():
                name = _name(key)
                if name is not None and value:
                    self._settings[name] = (f"{source} {key}={value}", str(value))
        self._read: set[str] = set()

    def text(self, name: str) -> str | None:
        self._read.add(name)
        found = self._settings.get(name)
        return found[1] if found else None

    def texts(self, prefix: str) -> None:
        self._read.update(name for name in self._settings if name.startswith(prefix))

    def one_of(self, name: str, accepted: tuple[str, ...]) -> str | None:
        value = self.text(name)
        if value is not None and value not in accepted:
            raise self._refused(name, f"accepted here: {', '.join(accepted)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in _TRUE + _FALSE:
            raise self._refused(name, "accepted: true, false")
        return value.lower() in _TRUE

    def number(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not value.isdecimal() or int(value) < 1:
            raise self._refused(name, "a number of at least 1 is accepted")
        return int(value)

    def only(self, name: str, *values: str) -> None:
        value = self.text(name)
        if value is not None and value.lower() not in values:
            raise self._refused(name, f"accepted here: {', '.join(values)}")

    def refuse_rest(self) -> None:
        for name in sorted(self._settings):
            if name not in self._read:
                raise self._refused(name, "this hypervisor does not offer it")

    def _refused(self, name: str, hint: str) -> Invalid:
        return Invalid(f"The {self._settings[name][0]} cannot be honoured; {hint}.")


_PREFIXES: dict[str, Callable[[str], str | None]] = {
    "hw:": lambda rest: rest,
    "hw_rng:": lambda rest: f"hw_rng:{rest}",
    "hw_video:": lambda rest: f"video:{rest}",
    "quota:": lambda rest: f"quota:{rest}",
    "pci_passthrough:": lambda rest: f"pci_passthrough:{rest}",
    "accel:": lambda rest: f"accel:{rest}",
    "vmware:": lambda rest: f"vmware:{rest}",
    "hw_": lambda rest: rest,
    "os:": lambda rest: rest,
}
_PLAIN = {
    "architecture": "architecture",
    "os_require_quiesce": "require_quiesce",
    "os_secure_boot": "secure_boot",
    "hide_hypervisor_id": "hide_hypervisor_id",
    "img_hide_hypervisor_id": "hide_hypervisor_id",
    "kernel_id": "kernel_id",
    "ramdisk_id": "ramdisk_id",
}


def _name(key: str) -> str | None:
    """One name for a setting whichever way it is said; None when it does not concern the hardware."""
    if key in _PLAIN:
        return _PLAIN[key]
    for prefix, to_name in _PREFIXES.items():
        if key.startswith(prefix):
            return to_name(key.removeprefix(prefix))
    return None


def _topology(vcpus: int, asked: _Asked) -> Topology:
    """Sockets, cores and threads as asked; as many sockets as may be where nothing is."""
    exact = [asked.number(f"cpu_{part}") for part in ("sockets", "cores", "threads")]
    most = [asked.number(f"cpu_max_{part}") for part in ("sockets", "cores", "threads")]
    for threads in range(1, vcpus + 1):
        for cores in range(1, vcpus // threads + 1):
            sockets, rest = divmod(vcpus, cores * threads)
            shape = (sockets, cores, threads)
            fits = all(want in (None, have) for want, have in zip(exact, shape, strict=True))
            within = all(limit is None or have <= limit for limit, have in zip(most, shape, strict=True))
            if rest == 0 and fits and within:
                return Topology(sockets=sockets, cores=cores, threads=threads)
    said = ", ".join(
        f"{label}{part}={value}"
        for label, values in (("", exact), ("at most ", most))
        for part, value in zip(("sockets", "cores", "threads"), values, strict=True)
        if value is not None
    )
    raise Invalid(f"{vcpus} vCPUs cannot be arranged as the flavor and the image ask ({said}).")
