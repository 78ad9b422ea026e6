"""Hosts and aggregates as the database has them; apart from the picture, whose arrays only schedulers need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One hypervisor node as the database has it. Memory in MiB, disk in GiB; `*_max` with ratios applied.

    `resources`: class to (max, used). `supported`: (architecture, hypervisor type, VM mode) of guests it can run.
    """

    id: int
    host: str
    node: str
    vcpus_max: int
    memory_mb_max: int
    disk_gb_max: int
    vcpus_used: int = 0
    memory_mb_used: int = 0
    disk_gb_used: int = 0
    running_vms: int = 0
    failed_builds: int = 0
    resources: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    service_id: int = 0
    uuid: str = ""
    hypervisor_type: str = ""
    hypervisor_version: int = 0
    vcpus: int = 0
    memory_mb: int = 0
    local_gb: int = 0
    vcpus_ratio: float = 1.0
    memory_ratio: float = 1.0
    disk_ratio: float = 1.0
    disk_available_least: int | None = None
    host_ip: str = ""
    cpu_info: Mapping[str, Any] = field(default_factory=dict)
    supported: tuple[tuple[str, str, str], ...] = ()
    traits: frozenset[str] = frozenset()
    metrics: Mapping[str, float] = field(default_factory=dict)
    numa_cells: Sequence[Any] = ()
    """As `numa.read_cells` takes them; what servers have of them is for the claim to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    id: int
    name: str
    hosts: frozenset[str]
    metadata: Mapping[str, str] = field(default_factory=dict)
