"""All hosts as columns, so that a filter is a mask and a weigher a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One hypervisor node as the database has it. Memory in MiB, disk in GiB; `*_max` with ratios applied."""

    id: int
    host: str
    node: str
    availability_zone: str
    enabled: bool
    up: bool
    vcpus_free: int
    memory_mb_free: int
    disk_gb_free: int


class Picture:
    """A snapshot; `take` deducts what was just given away, until the next snapshot shows it."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        self.ids: Ints = np.array([n.id for n in nodes], dtype=np.int64)
        self.enabled: Bools = np.array([n.enabled for n in nodes], dtype=np.bool_)
        self.up: Bools = np.array([n.up for n in nodes], dtype=np.bool_)
        self.vcpus: Ints = np.array([n.vcpus_free for n in nodes], dtype=np.int64)
        self.memory_mb: Ints = np.array([n.memory_mb_free for n in nodes], dtype=np.int64)
        self.disk_gb: Ints = np.array([n.disk_gb_free for n in nodes], dtype=np.int64)
        zones = sorted({n.availability_zone for n in nodes})
        self._zone_codes = {zone: code for code, zone in enumerate(zones)}
        self.zone: Ints = np.array([self._zone_codes[n.availability_zone] for n in nodes], dtype=np.int64)
        self._host_rows: dict[str, list[int]] = {}
        for row, node in enumerate(nodes):
            self._host_rows.setdefault(node.host, []).append(row)

    def zone_code(self, zone: str) -> int:
        """-1 for a zone without hosts."""
        return self._zone_codes.get(zone, -1)

    def rows_of_host(self, host: str) -> list[int]:
        return self._host_rows.get(host, [])

    def take(self, row: int, vcpus: int, memory_mb: int, disk_gb: int) -> None:
        self.vcpus[row] -= vcpus
        self.memory_mb[row] -= memory_mb
        self.disk_gb[row] -= disk_gb
