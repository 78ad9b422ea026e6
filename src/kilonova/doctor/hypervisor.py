"""`python -m kilonova.doctor.hypervisor JSON`: asks one libvirt what its host can do, as the agent would."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import libvirt

from kilonova.agent.libvirt import hardware
from kilonova.agent.libvirt.connection import explain
from kilonova.agent.libvirt.options import LibvirtOptions
from kilonova.doctor.findings import Finding, ok, warning, wrong
from kilonova.errors import HostFailure


def look(asked: dict[str, Any]) -> list[Finding]:
    """`asked`: uri, virt_type, machines (by architecture), cpu_models."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    uri = asked["uri"]
    try:
        handle = libvirt.open(uri)
        version = handle.getLibVersion()
    except libvirt.libvirtError as error:
        fix = "systemctl start libvirtd (or virtqemud), or [libvirt] connection_uri; the agent's user may connect"
        return [wrong("libvirt", f"{uri}: {explain(error)}", fix)]
    found = [ok("libvirt", f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000} at {uri}")]
    options = LibvirtOptions(state_path=Path("/"), deployment_id="", uri=uri, virt_type=asked["virt_type"])
    try:
        known = hardware.look(handle, options)
    except HostFailure as error:
        fix = "[libvirt] virt_type = qemu, or turn on virtualisation in the firmware; and is QEMU installed?"
        return [*found, wrong("libvirt: virt_type", error.message, fix)]
    found.append(_kind(asked["virt_type"], known))
    found.append(_emulator(known))
    return found + _choices(asked, known)


def _kind(said: str, known: hardware.Hardware) -> Finding:
    check = "libvirt: virt_type"
    if known.virt_type == "kvm" and not hardware.can_kvm():
        return wrong(check, "kvm, but this machine cannot: /dev/kvm does not open", "[libvirt] virt_type = qemu")
    if known.virt_type == "qemu" and hardware.can_kvm():
        return warning(check, "qemu, while this machine could run guests much faster", "[libvirt] virt_type = kvm")
    return ok(check, f"{known.virt_type}{' (by itself)' if said == 'auto' else ''}, {known.arch}")


def _emulator(known: hardware.Hardware) -> Finding:
    if os.access(known.emulator, os.X_OK):
        return ok("libvirt: emulator", known.emulator)
    return wrong("libvirt: emulator", f"{known.emulator or 'none'} cannot be run", "install QEMU for this architecture")


def _choices(asked: dict[str, Any], known: hardware.Hardware) -> list[Finding]:
    """What nova.conf chooses, and QEMU may not have."""
    machine = asked["machines"].get(platform.machine()) or "pc"
    found = []
    if machine in known.machines:
        found.append(ok("libvirt: machine", known.machines[machine]))
    else:
        found.append(wrong("libvirt: machine", known.unknown_machine(machine), "[libvirt] hw_machine_type"))
    models = asked["cpu_models"]
    if models and not set(models) & set(known.models):
        text = f"none of {', '.join(models)} can be had on this host"
        found.append(wrong("libvirt: cpu_models", text, "[libvirt] cpu_models; 'virsh domcapabilities' lists them"))
    return found


if __name__ == "__main__":
    print(json.dumps([asdict(finding) for finding in look(json.loads(sys.argv[1]))]))
