from __future__ import annotations

import msgspec


class PlacementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one server needs of a host. Memory in MiB, disk in GiB."""

    vcpus: int
    memory_mb: int
    disk_gb: int
    availability_zone: str | None = None
    host: str | None = None
    """Only this host (an administrator's wish)."""
    node: str | None = None
    exclude_nodes: tuple[int, ...] = ()
    """Nodes that have refused or failed already."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    node_id: int
    host: str
    node: str
    availability_zone: str


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Candidates, best first; `removed` names the filters in their order and how many hosts each took out."""

    candidates: list[Candidate]
    hosts: int
    removed: list[tuple[str, int]]

    def explain(self) -> str:
        """For the owner of a server that found no host."""
        if not self.hosts:
            return "No valid host was found. There are no compute hosts."
        said = ", ".join(f"{name} removed {count}" for name, count in self.removed if count)
        return f"No valid host was found. Of {self.hosts} hosts {said}." if said else "No valid host was found."
