"""What a hypervisor looks like."""

from __future__ import annotations

import json
from typing import Any

from kilonova.api.fields import Out, View
from kilonova.api.requests import Request
from kilonova.db.hosts import Hypervisor


def _state(node: Hypervisor, _: Request) -> str:
    return "up" if node.up else "down"


def _status(node: Hypervisor, _: Request) -> str:
    return "disabled" if node.disabled else "enabled"


def _service_by_id(node: Hypervisor, _: Request) -> dict[str, Any]:
    return {"id": node.service_id, "host": node.host, "disabled_reason": node.disabled_reason}


def _service_by_uuid(node: Hypervisor, _: Request) -> dict[str, Any]:
    return {"id": node.service_uuid, "host": node.host, "disabled_reason": node.disabled_reason}


def _memory_mb_used(node: Hypervisor, request: Request) -> int:
    return node.memory_mb_used + request.runtime.settings.reserved_host_memory_mb


def _free_ram_mb(node: Hypervisor, request: Request) -> int:
    return node.memory_mb - _memory_mb_used(node, request)


def _local_gb_used(node: Hypervisor, request: Request) -> int:
    return node.local_gb_used + request.runtime.settings.reserved_host_disk_mb // 1024


def _free_disk_gb(node: Hypervisor, request: Request) -> int:
    return node.local_gb - _local_gb_used(node, request)


def _cpu_info_text(node: Hypervisor, _: Request) -> str:
    return json.dumps(node.cpu_info)


BASIC = (
    Out("id", "id", until="2.52"),
    Out("id", "uuid", since="2.53"),
    Out("hypervisor_hostname", "hypervisor_hostname"),
    Out("state", _state),
    Out("status", _status),
)
BRIEF = View(*BASIC)
DETAIL = View(
    *BASIC,
    Out("hypervisor_type", "hypervisor_type"),
    Out("hypervisor_version", "hypervisor_version"),
    Out("host_ip", "host_ip"),
    Out("service", _service_by_id, until="2.52"),
    Out("service", _service_by_uuid, since="2.53"),
    Out("vcpus", "vcpus", until="2.87"),
    Out("memory_mb", "memory_mb", until="2.87"),
    Out("local_gb", "local_gb", until="2.87"),
    Out("vcpus_used", "vcpus_used", until="2.87"),
    Out("memory_mb_used", _memory_mb_used, until="2.87"),
    Out("local_gb_used", _local_gb_used, until="2.87"),
    Out("free_ram_mb", _free_ram_mb, until="2.87"),
    Out("free_disk_gb", _free_disk_gb, until="2.87"),
    Out("current_workload", "busy_vms", until="2.87"),
    Out("running_vms", "running_vms", until="2.87"),
    Out("disk_available_least", "disk_available_least", until="2.87"),
    Out("cpu_info", _cpu_info_text, until="2.27"),
    Out("cpu_info", "cpu_info", since="2.28", until="2.87"),
    Out("uptime", "uptime", since="2.88"),
)
