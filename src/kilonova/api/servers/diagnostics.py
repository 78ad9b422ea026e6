"""`GET /servers/{id}/diagnostics` and `/topology`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilonova.api import versions
from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.compute.servers.diagnostics import diagnostics

_PLAIN = (
    "state", "driver", "hypervisor", "hypervisor_os", "uptime", "config_drive", "num_cpus", "num_nics", "num_disks",
)  # fmt: skip
_CPU = ("id", "time", "utilisation")
_DISK = ("read_bytes", "read_requests", "write_bytes", "write_requests", "errors_count")
_NIC = (
    "mac_address", "rx_octets", "rx_errors", "rx_drop", "rx_packets", "rx_rate", "tx_octets", "tx_errors", "tx_drop",
    "tx_packets", "tx_rate",
)  # fmt: skip
_MEMORY = ("maximum", "used")


def _only(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: found.get(name) for name in names}


async def show(request: Request) -> dict[str, Any]:
    server = await find(request, "os_compute_api:os-server-diagnostics")
    told = await diagnostics(request.runtime, server)
    if request.version < versions.STANDARD_DIAGNOSTICS:
        return dict(told.get("legacy", {}))
    lists = {"disk_details": _DISK, "cpu_details": _CPU, "nic_details": _NIC}
    return (
        _only(told, _PLAIN)
        | {name: [_only(item, fields) for item in told.get(name, ())] for name, fields in lists.items()}
        | {"memory_details": _only(told.get("memory_details", {}), _MEMORY)}
    )


async def show_topology(request: Request) -> dict[str, Any]:
    """No guest is given NUMA nodes of its own: a flavor or an image that asks for more than the one is refused."""
    await find(request, "compute:server:topology:index")
    return {"nodes": [], "pagesize_kb": None}
