"""A guest as libvirt wants it described. Pure: the same inputs give the same XML."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from kilonova.agent.driver import ServerSpec
from kilonova.agent.libvirt.cells import guest_cells, tuning
from kilonova.agent.libvirt.hardware import Cpu
from kilonova.agent.libvirt.mark import Mark
from kilonova.agent.libvirt.options import LibvirtOptions
from kilonova.agent.libvirt.pci import hostdev
from kilonova.agent.wanted import Wanted
from kilonova.errors import Invalid
from kilonova.nic import Nic

_NAMES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One disk or CD of a guest. `format`: raw or qcow2."""

    path: Path
    format: str
    cdrom: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What was chosen for the guest on this host."""

    arch: str
    virt_type: str
    emulator: str
    machine: str
    cpu: Cpu
    disk_cache: str

    @property
    def pcie(self) -> bool:
        return "q35" in self.machine


def build(
    spec: ServerSpec,
    *,
    options: LibvirtOptions,
    platform: Platform,
    wanted: Wanted,
    drives: list[Drive],
    console_log: Path,
    reboot: str = "",
) -> tuple[str, Mark]:
    """The domain's XML with our mark in it. Raises Invalid when the parts asked for do not fit together."""
    domain = _domain(spec, options, platform, wanted, drives, console_log)
    definition = hashlib.sha256(ET.tostring(domain)).hexdigest()[:32]
    mark = Mark(deployment=spec.deployment_id, definition=definition, reboot=reboot)
    element = ET.Element("metadata")
    element.append(mark.element())
    # after name and uuid
    domain.insert(2, element)
    return ET.tostring(domain, encoding="unicode"), mark


def _domain(
    spec: ServerSpec,
    options: LibvirtOptions,
    platform: Platform,
    wanted: Wanted,
    drives: list[Drive],
    console_log: Path,
) -> ET.Element:
    domain = ET.Element("domain", type=platform.virt_type)
    _text(domain, "name", spec.name)
    _text(domain, "uuid", spec.uuid)
    title = "".join(char for char in spec.display_name if char.isprintable())
    if title:
        _text(domain, "title", title)
    _text(domain, "memory", str(spec.memory_mb), unit="MiB")
    domain.extend(tuning(spec, options.shared_cpus))
    _system_information(domain, spec)
    _boot(domain, platform, wanted)
    _features(domain, options, platform, wanted)
    cpu = _cpu(domain, platform, wanted)
    if spec.numa:
        cpu.append(guest_cells(spec))
    clock = ET.SubElement(domain, "clock", offset="utc")
    if platform.virt_type == "kvm":
        ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
        ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="hpet", present="yes" if wanted.hpet else "no")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    devices = ET.SubElement(domain, "devices")
    _text(devices, "emulator", platform.emulator)
    _controllers(devices, options, platform, wanted)
    _drives(devices, platform, wanted, drives)
    for nic in spec.nics:
        devices.append(interface(nic, wanted))
    for address in spec.pci_devices:
        devices.append(hostdev(address))
    _consoles(devices, options, wanted, console_log)
    _extras(devices, options, wanted)
    return domain


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _system_information(domain: ET.Element, spec: ServerSpec) -> None:
    """SMBIOS; guests' tools recognise an OpenStack by the product's name."""
    system = ET.SubElement(ET.SubElement(domain, "sysinfo", type="smbios"), "system")
    for name, value in (
        ("manufacturer", "Kilonova"),
        ("product", "OpenStack Compute"),
        ("version", metadata.version("kilonova")),
        ("serial", spec.uuid),
        ("uuid", spec.uuid),
        ("family", "Virtual Machine"),
    ):
        _text(system, "entry", value, name=name)


def _boot(domain: ET.Element, platform: Platform, wanted: Wanted) -> None:
    os = ET.SubElement(domain, "os")
    _text(os, "type", "hvm", arch=platform.arch, machine=platform.machine)
    ET.SubElement(os, "boot", dev="hd")
    if wanted.boot_menu:
        ET.SubElement(os, "bootmenu", enable="yes")
    ET.SubElement(os, "smbios", mode="sysinfo")


def _features(domain: ET.Element, options: LibvirtOptions, platform: Platform, wanted: Wanted) -> None:
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if wanted.hide_hypervisor:
        ET.SubElement(ET.SubElement(features, "kvm"), "hidden", state="on")
    if platform.virt_type == "qemu" and options.tb_cache_mib:
        _text(ET.SubElement(features, "tcg"), "tb-cache", str(options.tb_cache_mib), unit="MiB")


def _cpu(domain: ET.Element, platform: Platform, wanted: Wanted) -> ET.Element:
    cpu = ET.SubElement(domain, "cpu")
    if platform.cpu.mode != "none":
        cpu.set("mode", platform.cpu.mode)
    if platform.cpu.model is not None:
        cpu.set("match", "exact")
        # an emulated CPU may lack single features of its model, which no guest misses
        cpu.set("check", "none" if platform.virt_type == "qemu" else "partial")
        _text(cpu, "model", platform.cpu.model, fallback="forbid")
    shape = wanted.topology
    ET.SubElement(cpu, "topology", sockets=str(shape.sockets), cores=str(shape.cores), threads=str(shape.threads))
    return cpu


def cdrom_bus(platform: Platform, wanted: Wanted) -> str:
    """IDE on machine type pc; q35 has none, and its SATA is missing in small guests' kernels."""
    return wanted.cdrom_bus or ("scsi" if platform.pcie else "ide")


def _controllers(devices: ET.Element, options: LibvirtOptions, platform: Platform, wanted: Wanted) -> None:
    if platform.pcie:
        ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
        for _ in range(options.num_pcie_ports):
            ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    if "scsi" in (wanted.disk_bus, cdrom_bus(platform, wanted)):
        ET.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    # An idle USB controller costs an emulated guest CPU time all day.
    model = ("qemu-xhci" if platform.pcie else "piix3-uhci") if wanted.usb_tablet else "none"
    ET.SubElement(devices, "controller", type="usb", index="0", model=model)


def _drives(devices: ET.Element, platform: Platform, wanted: Wanted, drives: list[Drive]) -> None:
    used: dict[str, int] = {}
    for drive in drives:
        bus = cdrom_bus(platform, wanted) if drive.cdrom else wanted.disk_bus
        if bus == "ide" and platform.pcie:
            raise Invalid("The image or flavor asks for an IDE disk, which machine type q35 does not have.")
        prefix = _NAMES[bus]
        name = prefix + chr(ord("a") + used.get(prefix, 0))
        used[prefix] = used.get(prefix, 0) + 1
        disk = ET.SubElement(devices, "disk", type="file", device="cdrom" if drive.cdrom else "disk")
        driver = ET.SubElement(disk, "driver", name="qemu", type=drive.format, cache=platform.disk_cache)
        if not drive.cdrom:
            driver.set("discard", "unmap")
        ET.SubElement(disk, "source", file=str(drive.path))
        ET.SubElement(disk, "target", dev=name, bus=bus)
        if drive.cdrom:
            ET.SubElement(disk, "readonly")


def interface(nic: Nic, wanted: Wanted) -> ET.Element:
    """A port's NIC on a tap that is there already, and that nobody but us makes or removes."""
    element = ET.Element("interface", type="ethernet")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "target", dev=nic.tap, managed="no")
    ET.SubElement(element, "model", type=wanted.vif_model)
    if nic.mtu:
        ET.SubElement(element, "mtu", size=str(nic.mtu))
    # Booting from a network is slow, and no guest here does.
    if wanted.vif_model == "virtio":
        ET.SubElement(element, "rom", enabled="no")
    return element


def _consoles(devices: ET.Element, options: LibvirtOptions, wanted: Wanted, console_log: Path) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    # append: what a guest said before it was restarted is what one wants to read
    ET.SubElement(serial, "log", file=str(console_log), append="on")
    ET.SubElement(serial, "target", port="0")
    if options.vnc_enabled:
        graphics = ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen=options.vnc_listen)
        ET.SubElement(graphics, "listen", type="address", address=options.vnc_listen)
        if wanted.usb_tablet:
            ET.SubElement(devices, "input", type="tablet", bus="usb")
        else:
            ET.SubElement(devices, "input", type="tablet", bus="virtio")
    video = ET.SubElement(devices, "video")
    ET.SubElement(video, "model", type=wanted.video_model if options.vnc_enabled else "none")


def _extras(devices: ET.Element, options: LibvirtOptions, wanted: Wanted) -> None:
    if wanted.guest_agent:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if wanted.watchdog != "disabled":
        ET.SubElement(devices, "watchdog", model="i6300esb", action=wanted.watchdog)
    if wanted.rng:
        rng = ET.SubElement(devices, "rng", model="virtio")
        _text(rng, "backend", "/dev/urandom", model="random")
    balloon = ET.SubElement(devices, "memballoon", model="virtio")
    if options.mem_stats_period:
        ET.SubElement(balloon, "stats", period=str(options.mem_stats_period))
