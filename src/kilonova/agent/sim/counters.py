"""Diagnostics of a simulated guest: the standard document, its counters at nothing."""

from __future__ import annotations

from kilonova.agent.driver import PowerState, ServerSpec

_WAYS = ("octets", "errors", "drop", "packets")


def counted(spec: ServerSpec, power_state: PowerState) -> dict[str, object]:
    """As `Driver.diagnostics` has it."""
    on = power_state in (PowerState.RUNNING, PowerState.PAUSED)
    cpus = [{"id": number, "time": 0, "utilisation": None} for number in range(spec.vcpus)] if on else []
    disk = {"read_bytes": 0, "read_requests": 0, "write_bytes": 0, "write_requests": 0, "errors_count": 0}
    nothing = {f"{way}_{what}": 0 for way in ("rx", "tx") for what in _WAYS}
    rates = {"rx_rate": None, "tx_rate": None}
    nics = [{"mac_address": nic.mac, **nothing, **rates} for nic in spec.nics] if on else []
    disks = [disk] if on else []
    legacy: dict[str, object] = {f"cpu{number}_time": 0 for number in range(len(cpus))}
    legacy |= {f"vda_{name}": 0 for name in ("read", "read_req", "write", "write_req")} | {"vda_errors": -1}
    for number in range(len(nics)):
        for way in ("rx", "tx"):
            legacy |= {f"tap{number}_{way}{end}": 0 for end in ("", "_packets", "_errors", "_drop")}
    return {
        "state": power_state.name.lower(),
        "driver": "sim",
        "hypervisor": "sim",
        "hypervisor_os": "linux",
        "uptime": 0 if on else None,
        "config_drive": spec.config_drive,
        "num_cpus": len(cpus),
        "num_nics": len(nics),
        "num_disks": len(disks),
        "cpu_details": cpus,
        "nic_details": nics,
        "disk_details": disks,
        "memory_details": {"maximum": spec.memory_mb, "used": spec.memory_mb},
        "legacy": legacy | {"memory": spec.memory_mb * 1024},
    }
