"""What the host has: memory from the kernel, disk from the file system, processors from libvirt."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

from kilonova.agent.driver import Inventory, dedicated
from kilonova.agent.libvirt import pci
from kilonova.agent.libvirt.cells import cells
from kilonova.agent.libvirt.disks import GIB, MIB, Disks
from kilonova.agent.libvirt.hardware import Hardware
from kilonova.agent.libvirt.options import LibvirtOptions
from kilonova.numa import divided
from kilonova.pci import chosen

# os-traits' name of a CPU feature where it is not simply its name in capitals
_TRAITS = {
    "sse4.1": "SSE41",
    "sse4.2": "SSE42",
    "pni": "SSE3",
    "aes": "AESNI",
    "sha-ni": "SHA",
    "fma4": "FMA4",
    "3dnow": "3DNOW",
    "abm": "ABM",
    "pclmuldq": "CLMUL",
}
_FEATURES = frozenset(
    (
        *(
            "abm",
            "adx",
            "aes",
            "avx",
            "avx2",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512f",
            "avx512vl",
            "bmi1",
            "bmi2",
        ),
        *("f16c", "fma", "fma4", "mmx", "mpx", "pclmuldq", "pni", "rdseed", "sgx", "sha-ni", "sse", "sse2", "sse4.1"),
        *("sse4.2", "sse4a", "ssse3", "svm", "tbm", "tsx", "vmx", "xop"),
    )
)
_COMPUTE = (
    *("COMPUTE_NODE", "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_GRAPHICS_MODEL_VGA"),
    *("COMPUTE_GRAPHICS_MODEL_VIRTIO", "COMPUTE_GRAPHICS_MODEL_CIRRUS", "COMPUTE_STORAGE_BUS_VIRTIO"),
    *("COMPUTE_STORAGE_BUS_SCSI", "COMPUTE_STORAGE_BUS_SATA", "COMPUTE_STORAGE_BUS_IDE"),
    *("COMPUTE_NET_VIF_MODEL_VIRTIO",),
)


def inventory(handle: Any, options: LibvirtOptions, hardware: Hardware, disks: Disks) -> Inventory:
    """Everything the host has, before ratios and reservations."""
    status = os.statvfs(options.state_path)
    free = status.f_bavail * status.f_frsize
    memory_mb = total_memory() // MIB
    found = cells(handle.getCapabilities(), options.reserved_huge_pages, memory_mb, handle.getCPUMap()[0])
    mine = divided(found, options.cpu_shared_set, options.cpu_dedicated_set)
    return Inventory(
        hypervisor_type=handle.getType(),
        hypervisor_version=handle.getVersion(),
        hypervisor_hostname=options.host_name,
        vcpus=sum(len(cell.cpus) for cell in mine),
        memory_mb=memory_mb,
        local_gb=status.f_blocks * status.f_frsize // GIB,
        cpu_info=hardware.cpu_info,
        supported=tuple((hardware.arch, kind, "hvm") for kind in hardware.kinds),
        traits=tuple(sorted((*_COMPUTE, *_cpu_traits(hardware.features)))),
        host_ip=options.host_ip,
        cells=mine,
        resources=dedicated(mine),
        pci_devices=chosen(pci.devices(handle), options.pci_specs) if options.pci_specs else (),
        uptime=uptime(),
        disk_available_least=(free - disks.promised_bytes()) // GIB,
    )


def total_memory() -> int:
    """Bytes, by the kernel: libvirt's own figure is wrong in containers and on some virtual machines."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemTotal")


def uptime() -> str:
    """As uptime(1) says it, which is what the Compute API shows."""
    seconds = int(float(Path("/proc/uptime").read_text().split()[0]))
    days, rest = divmod(seconds, 86400)
    hours, minutes = divmod(rest // 60, 60)
    since = f"{days} day{'s' if days != 1 else ''}, " if days else ""
    since += f"{hours}:{minutes:02}" if hours else f"{minutes} min"
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    now = dt.datetime.now(dt.UTC).astimezone()
    return f" {now:%H:%M:%S} up {since},  0 users,  load average: {load}"


def _cpu_traits(features: tuple[str, ...]) -> list[str]:
    return [f"HW_CPU_X86_{_TRAITS.get(name, name.upper())}" for name in features if name in _FEATURES]
