"""How much of a host may be given to servers: by its own configuration, sent with its reports."""

from __future__ import annotations

import msgspec


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio that is set counts from now on; else the initial one, at the host's first report only.

    Memory and disk in MiB.
    """

    cpu_ratio: float | None = None
    ram_ratio: float | None = None
    disk_ratio: float | None = None
    initial_cpu_ratio: float = 16.0
    initial_ram_ratio: float = 1.5
    initial_disk_ratio: float = 1.0
    reserved_cpus: int = 0
    reserved_memory_mb: int = 512
    reserved_disk_mb: int = 0

    def ratios(self, before: tuple[float, float, float] | None) -> tuple[float, float, float]:
        """Of CPU, memory and disk; `before`: those that the host has had."""
        fixed = (self.cpu_ratio, self.ram_ratio, self.disk_ratio)
        initial = before or (self.initial_cpu_ratio, self.initial_ram_ratio, self.initial_disk_ratio)
        chosen = [ratio or first for ratio, first in zip(fixed, initial, strict=True)]
        return chosen[0], chosen[1], chosen[2]
