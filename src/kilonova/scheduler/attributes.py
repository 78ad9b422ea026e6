"""The attributes of hosts that flavors and hints may name, as `capabilities:free_ram_mb` or `$free_ram_mb`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from kilonova.scheduler.node import Node
from kilonova.scheduler.picture import Coded, Ints, Picture

CHANGING: dict[str, Callable[[Picture], Ints]] = {
    "free_ram_mb": lambda picture: picture.free_memory_mb,
    "memory_mb_used": lambda picture: picture.number("memory_mb_used"),
    "free_disk_mb": lambda picture: picture.free_disk_gb * 1024,
    "free_disk_gb": lambda picture: picture.free_disk_gb,
    "disk_mb_used": lambda picture: picture.number("disk_gb_used") * 1024,
    "local_gb_used": lambda picture: picture.number("disk_gb_used"),
    "vcpus_used": lambda picture: picture.number("vcpus_used"),
    "vcpus_free": lambda picture: picture.free_vcpus,
    "num_instances": lambda picture: picture.number("running_vms"),
    "running_vms": lambda picture: picture.number("running_vms"),
    "num_io_ops": lambda picture: picture.number("io_ops"),
    "current_workload": lambda picture: picture.number("io_ops"),
    "failed_builds": lambda picture: picture.number("failed_builds"),
}

LASTING: dict[str, Callable[[Node], Any]] = {
    "host": lambda node: node.host,
    "nodename": lambda node: node.node,
    "hypervisor_hostname": lambda node: node.node,
    "hypervisor_type": lambda node: node.hypervisor_type,
    "hypervisor_version": lambda node: node.hypervisor_version,
    "host_ip": lambda node: node.host_ip,
    "id": lambda node: node.id,
    "uuid": lambda node: node.uuid,
    "service_id": lambda node: node.service_id,
    "vcpus": lambda node: node.vcpus,
    "vcpus_total": lambda node: node.vcpus,
    "memory_mb": lambda node: node.memory_mb,
    "total_usable_ram_mb": lambda node: node.memory_mb,
    "local_gb": lambda node: node.local_gb,
    "total_usable_disk_gb": lambda node: node.local_gb,
    "disk_available_least": lambda node: node.disk_available_least,
    "cpu_allocation_ratio": lambda node: node.vcpus_ratio,
    "ram_allocation_ratio": lambda node: node.memory_ratio,
    "disk_allocation_ratio": lambda node: node.disk_ratio,
    "cpu_info": lambda node: node.cpu_info,
    "supported_instances": lambda node: [list(one) for one in node.supported],
    "supported_hv_specs": lambda node: [list(one) for one in node.supported],
    "metrics": lambda node: node.metrics,
    "stats": lambda node: {},
}


def known(name: str) -> bool:
    return name in CHANGING or name in LASTING


def column(picture: Picture, path: Sequence[str]) -> Coded | None:
    """The values of an attribute, or of what `path` leads to within it (None where it leads nowhere).

    None when no host has such an attribute.
    """
    name, *rest = path
    changing = CHANGING.get(name)
    if changing is not None:
        if rest:
            return None
        values, codes = np.unique(changing(picture), return_inverse=True)
        return Coded(values.tolist(), codes)
    lasting = LASTING.get(name)
    if lasting is None:
        return None
    return picture.column(f"attribute {':'.join(path)}", lambda node: _walk(lasting(node), rest), _hashable)


def _walk(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _hashable(value: Any) -> Any:
    if isinstance(value, list | Mapping):
        return msgspec.json.encode(value, order="deterministic")
    return (type(value), value)
