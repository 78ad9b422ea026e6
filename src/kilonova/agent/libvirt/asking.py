"""What can be asked of a guest: its console's log and its counters."""

from __future__ import annotations

import contextlib
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import libvirt

from kilonova.agent.driver import ConsoleKind, PowerState
from kilonova.agent.libvirt import guests
from kilonova.errors import Conflict, Invalid

_KIB = 1024


def console_tail(log: Path, lines: int | None, limit: int) -> str:
    """The end of a console's log: at most `limit` bytes, at most `lines` lines. Empty when there is none yet.

    virtlogd turns the log over by size; what went into the file before (`.0`) is joined when the new one is short.
    """
    if lines is not None and lines <= 0:
        return ""
    data = b""
    for path in (log, log.with_name(f"{log.name}.0")):
        if len(data) < limit:
            data = _end_of(path, limit - len(data)) + data
    text = data.decode(errors="replace")
    return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:])


def _end_of(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - limit))
            return stream.read(limit)
    except OSError:
        return b""


def console_port(domain: Any, kind: ConsoleKind) -> int | None:
    """The port of a guest's screen; None for its serial line, which has none.

    Raises Conflict when the guest is off, Invalid when it has no such console.
    """
    if not domain.isActive():
        raise Conflict(f"Server {domain.UUIDString()} is off.")
    description = ET.fromstring(domain.XMLDesc(0))
    if kind == "serial":
        if description.find("devices/serial") is None:
            raise Invalid(f"Server {domain.UUIDString()} has no serial line.")
        return None
    screen = description.find("devices/graphics[@type='vnc']")
    port = int(screen.get("port", "-1")) if screen is not None else -1
    if port <= 0:
        raise Invalid(f"Server {domain.UUIDString()} has no screen.")
    return port


_STATES = {
    PowerState.NOSTATE: "pending",
    PowerState.RUNNING: "running",
    PowerState.PAUSED: "paused",
    PowerState.SHUTDOWN: "shutdown",
    PowerState.CRASHED: "crashed",
    PowerState.SUSPENDED: "suspended",
}


def diagnostics(domain: Any, hypervisor: str) -> dict[str, object]:
    """The standard document of the Compute API (2.48). Times in nanoseconds and seconds, memory in MiB.

    `legacy` holds what earlier versions show: counters named after the guest's devices, memory in KiB.
    """
    power = guests.view(domain).power
    description = ET.fromstring(domain.XMLDesc(0))
    stats = _stats(domain)
    legacy: dict[str, object] = {}
    cpus = _cpus(domain, description, legacy)
    disks = _disks(stats, legacy)
    nics = _nics(stats, description, legacy)
    memory = _memory(domain, description, legacy)
    return {
        "state": _STATES[power],
        "driver": "libvirt",
        "hypervisor": hypervisor,
        "hypervisor_os": "linux",
        "uptime": _uptime(domain),
        "config_drive": description.find("devices/disk[@device='cdrom']/source") is not None,
        "num_cpus": len(cpus),
        "num_nics": len(nics),
        "num_disks": len(disks),
        "cpu_details": cpus,
        "nic_details": nics,
        "disk_details": disks,
        "memory_details": memory,
        "legacy": legacy,
    }


def _stats(domain: Any) -> dict[str, Any]:
    """Block and interface counters; empty when the guest is off."""
    if not domain.isActive():
        return {}
    wanted = libvirt.VIR_DOMAIN_STATS_BLOCK | libvirt.VIR_DOMAIN_STATS_INTERFACE
    found = domain.connect().domainListGetStats([domain], wanted)
    return dict(found[0][1]) if found else {}


def _cpus(domain: Any, description: ET.Element, legacy: dict[str, object]) -> list[dict[str, object]]:
    if not domain.isActive():
        return []
    cpus: list[dict[str, object]] = []
    for number, _state, nanoseconds, _processor in domain.vcpus()[0]:
        cpus.append({"id": number, "time": nanoseconds, "utilisation": None})
        legacy[f"cpu{number}_time"] = nanoseconds
    return cpus


def _disks(stats: dict[str, Any], legacy: dict[str, object]) -> list[dict[str, object]]:
    disks: list[dict[str, object]] = []
    for number in range(stats.get("block.count", 0)):
        prefix = f"block.{number}."
        name = stats.get(f"{prefix}name", f"disk{number}")
        figures = {
            "read_bytes": stats.get(f"{prefix}rd.bytes", 0),
            "read_requests": stats.get(f"{prefix}rd.reqs", 0),
            "write_bytes": stats.get(f"{prefix}wr.bytes", 0),
            "write_requests": stats.get(f"{prefix}wr.reqs", 0),
            "errors_count": stats.get(f"{prefix}errors", 0),
        }
        disks.append(dict(figures))
        legacy |= {
            f"{name}_read": figures["read_bytes"],
            f"{name}_read_req": figures["read_requests"],
            f"{name}_write": figures["write_bytes"],
            f"{name}_write_req": figures["write_requests"],
            # QEMU does not count them, as the reference shows it
            f"{name}_errors": -1,
        }
    return disks


def _nics(stats: dict[str, Any], description: ET.Element, legacy: dict[str, object]) -> list[dict[str, object]]:
    macs = {}
    for interface in description.findall("devices/interface"):
        target, mac = interface.find("target"), interface.find("mac")
        if target is not None and mac is not None:
            macs[target.get("dev")] = mac.get("address")
    nics: list[dict[str, object]] = []
    for number in range(stats.get("net.count", 0)):
        prefix = f"net.{number}."
        name = stats.get(f"{prefix}name", f"nic{number}")
        nic: dict[str, object] = {"mac_address": macs.get(name)}
        for way in ("rx", "tx"):
            for ours, theirs, short in (
                ("octets", "bytes", ""),
                ("packets", "pkts", "_packets"),
                ("errors", "errs", "_errors"),
                ("drop", "drop", "_drop"),
            ):
                value = stats.get(f"{prefix}{way}.{theirs}", 0)
                nic[f"{way}_{ours}"] = value
                legacy[f"{name}_{way}{short}"] = value
            nic[f"{way}_rate"] = None
        nics.append(nic)
    return nics


def _memory(domain: Any, description: ET.Element, legacy: dict[str, object]) -> dict[str, object]:
    maximum = domain.maxMemory()
    legacy["memory"] = maximum
    used = None
    if domain.isActive():
        figures: dict[str, int] = {}
        with contextlib.suppress(libvirt.libvirtError):
            figures = domain.memoryStats()
        legacy |= {f"memory-{name}": value for name, value in figures.items()}
        if "available" in figures and "unused" in figures:
            used = (figures["available"] - figures["unused"]) // _KIB
    return {"maximum": maximum // _KIB, "used": maximum // _KIB if used is None else used}


def _uptime(domain: Any) -> int | None:
    """Seconds since the guest's process began; None when it has none that we can see."""
    if not domain.isActive():
        return None
    wanted = b"\0-uuid\0" + domain.UUIDString().encode() + b"\0"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (process / "cmdline").read_bytes():
                # field 22, counted after the command's closing parenthesis
                ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
                since_boot = float(Path("/proc/uptime").read_text().split()[0])
                return int(since_boot - ticks / os.sysconf("SC_CLK_TCK"))
    return None
