"""What this host's hypervisor can do, from libvirt's capabilities: asked once per connection."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from kilonova.agent.libvirt.options import LibvirtOptions
from kilonova.errors import HostFailure

EMULATED_MODEL = "Nehalem"
"""The CPU of emulated guests: what current distributions are compiled for (x86-64-v2), all of which TCG can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`machines`: every name, also an alias like `pc`, to the one that stays the same over upgrades."""

    arch: str
    virt_type: str
    emulator: str
    machines: dict[str, str]
    models: tuple[str, ...]
    """CPU models that guests can have here."""
    cpu_info: dict[str, object]
    features: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Hypervisor types that images may ask for here."""
        return ("kvm", "qemu") if self.virt_type == "kvm" else ("qemu",)

    def machine(self, name: str) -> str:
        """The lasting name of a machine type. Raises HostFailure: another host's QEMU may know it."""
        try:
            return self.machines[name]
        except KeyError:
            raise HostFailure(self.unknown_machine(name)) from None

    def unknown_machine(self, name: str) -> str:
        aliases = sorted(alias for alias, full in self.machines.items() if alias != full)
        return (
            f"The machine type '{name}' is not known to this host; accepted are {', '.join(aliases)} "
            f"and the versions that 'qemu-system-{self.arch} -machine help' lists."
        )


def can_kvm() -> bool:
    """Whether guests can use the CPU's virtualisation. The device file alone says nothing: it may be there in vain."""
    flags = Path("/proc/cpuinfo").read_text()
    if not any(f" {flag} " in flags or f" {flag}\n" in flags for flag in ("vmx", "svm")):
        return False
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError:
        return False
    return True


def look(handle: Any, options: LibvirtOptions) -> Hardware:
    """Blocks for some 100 ms when libvirt has not probed QEMU yet. Raises HostFailure."""
    capabilities = ET.fromstring(handle.getCapabilities())
    cpu = capabilities.find("host/cpu")
    arch = capabilities.findtext("host/cpu/arch") or os.uname().machine
    virt_type = options.virt_type
    if virt_type == "auto":
        virt_type = "kvm" if can_kvm() else "qemu"
    guest = capabilities.find(f"guest/arch[@name='{arch}']")
    if guest is None or guest.find(f"domain[@type='{virt_type}']") is None:
        raise HostFailure(f"This host has no hypervisor for virt_type={virt_type} and {arch} guests.")
    machines: dict[str, str] = {}
    for source in (guest, guest.find(f"domain[@type='{virt_type}']")):
        for machine in source.findall("machine") if source is not None else ():
            name = machine.text or ""
            machines[name] = machine.get("canonical", name)
    emulator = guest.findtext(f"domain[@type='{virt_type}']/emulator") or guest.findtext("emulator") or ""
    try:
        able = ET.fromstring(handle.getDomainCapabilities(emulator, arch, None, virt_type))
    except libvirt.libvirtError as error:
        raise HostFailure(f"libvirt does not know what {emulator} can do: {error.get_error_message()}") from error
    models = tuple(
        model.text or "" for model in able.findall("cpu/mode[@name='custom']/model") if model.get("usable") != "no"
    )
    features = _features(cpu, able)
    return Hardware(
        arch=arch,
        virt_type=virt_type,
        emulator=emulator,
        machines=machines,
        models=models,
        cpu_info=_cpu_info(capabilities, able, arch, features),
        features=features,
    )


def _features(cpu: ET.Element | None, able: ET.Element) -> tuple[str, ...]:
    found = {element.get("name", "") for element in (cpu.findall("feature") if cpu is not None else ())}
    host_model = able.find("cpu/mode[@name='host-model']")
    for element in host_model.findall("feature") if host_model is not None else ():
        if element.get("policy") == "require":
            found.add(element.get("name", ""))
    return tuple(sorted(found - {""}))


def _cpu_info(capabilities: ET.Element, able: ET.Element, arch: str, features: tuple[str, ...]) -> dict[str, object]:
    """As the Compute API shows it."""
    cpu = capabilities.find("host/cpu")
    topology = cpu.find("topology") if cpu is not None else None
    cells = capabilities.findall("host/topology/cells/cell")
    threads = int(topology.get("threads", "1")) if topology is not None else 1
    cores = int(topology.get("cores", "1")) if topology is not None else os.cpu_count() or 1
    sockets = int(topology.get("sockets", "1")) if topology is not None else 1
    host_model = able.find("cpu/mode[@name='host-model']")
    model = vendor = None
    if cpu is not None:
        model, vendor = cpu.findtext("model"), cpu.findtext("vendor")
    if model is None and host_model is not None:
        model, vendor = host_model.findtext("model"), host_model.findtext("vendor")
    return {
        "arch": arch,
        "model": model,
        "vendor": vendor,
        "features": list(features),
        "topology": {"cells": max(len(cells), 1), "sockets": sockets, "cores": cores, "threads": threads},
    }


@dataclass(frozen=True, slots=True)
class Cpu:
    """How a guest's CPU stands in its XML; `recorded` is what is kept with the server, so that it never changes."""

    mode: str
    model: str | None
    recorded: str


def choose_cpu(options: LibvirtOptions, hardware: Hardware, recorded: str | None) -> Cpu:
    """The CPU for a guest: the one recorded with it, else by configuration. Raises HostFailure."""
    if recorded in ("host-model", "host-passthrough", "none"):
        return Cpu(mode=recorded, model=None, recorded=recorded)
    if recorded is not None:
        if recorded not in hardware.models:
            raise HostFailure(f"The CPU model '{recorded}' recorded with the server cannot be had on this host.")
        return Cpu(mode="custom", model=recorded, recorded=recorded)
    mode = options.cpu_mode
    if mode is None:
        if hardware.virt_type == "kvm":
            mode = "host-model"
        else:
            return choose_cpu(options, hardware, EMULATED_MODEL if EMULATED_MODEL in hardware.models else "none")
    if mode != "custom":
        return Cpu(mode=mode, model=None, recorded=mode)
    able = [model for model in options.cpu_models if model in hardware.models]
    if not able:
        names = ", ".join(options.cpu_models) or "none"
        raise HostFailure(f"cpu_mode=custom needs cpu_models that this host can run; configured are: {names}.")
    return Cpu(mode="custom", model=able[-1], recorded=able[-1])
