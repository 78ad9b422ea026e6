"""`GET /servers/{id}/diagnostics` and `/topology`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilonova.api import versions
from kilonova.api.requests import Request
from kilonova.api.servers.lookup import find
from kilonova.compute.servers.diagnostics import diagnostics
from kilonova.numa import Placed, read_placed

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
    """A server's cells; which of its host's they lie in is for those to know whom policy lets."""
    server = await find(request, "compute:server:topology:index")
    placed = read_placed((server.claim or {}).get("numa"))
    of_host = request.allowed("compute:server:topology:host:index", {"project_id": server.project_id})
    nodes = [_cell(one, of_host=of_host) for one in placed]
    pages = {one.page_kib for one in placed if one.page_kib}
    return {"nodes": nodes, "pagesize_kb": min(pages, default=None)}


def _cell(placed: Placed, *, of_host: bool) -> dict[str, Any]:
    view: dict[str, Any] = {"memory_mb": placed.memory_mb, "siblings": [], "vcpu_set": list(placed.cpus)}
    if of_host:
        pins = {str(vcpu): pin for vcpu, pin in placed.pinning.items()}
        view |= {"cpu_pinning": pins, "host_node": placed.cell}
    return view
