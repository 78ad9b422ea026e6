"""A question to the scheduler and its answer."""

from __future__ import annotations

import msgspec

from kilonova.numa import Asked

AFFINITY, ANTI_AFFINITY = "affinity", "anti-affinity"
SOFT_AFFINITY, SOFT_ANTI_AFFINITY = "soft-affinity", "soft-anti-affinity"


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The server group of the server to place; `members` counts those on each host, this one left out."""

    policy: str
    max_server_per_host: int = 1
    """With anti-affinity."""
    members: dict[str, int] = {}


class PlacementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one server needs of a host. Memory in MiB, disk in GiB."""

    vcpus: int
    memory_mb: int
    disk_gb: int
    resources: dict[str, int] = {}
    """Amounts of other resource classes, e.g. CUSTOM_GPU."""
    numa: Asked | None = None
    """NUMA cells, CPUs of its own and pages."""
    required_traits: tuple[str, ...] = ()
    forbidden_traits: tuple[str, ...] = ()
    availability_zone: str | None = None
    host: str | None = None
    """Only this host (an administrator's wish)."""
    node: str | None = None
    forced: bool = False
    """Whether that wish goes before filters; what is claimed must be there all the same."""
    exclude_nodes: tuple[int, ...] = ()
    """Nodes that have refused or failed already."""
    project_id: str = ""
    flavor_name: str = ""
    extra_specs: dict[str, str] = {}
    image_id: str | None = None
    image_properties: dict[str, str] = {}
    group: Group | None = None
    same_hosts: tuple[str, ...] | None = None
    """Hosts of the servers that the hint `same_host` names; None: not asked."""
    different_hosts: tuple[str, ...] = ()
    near_ip: str | None = None
    """Hint `build_near_host_ip`; `cidr` is the length of the prefix that has to be the same, as '/24'."""
    cidr: str = "/24"
    query: str | None = None
    """Hint `query`: JSON, as JsonFilter reads it."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """`failing`: builds have failed there since the last that did not.

    `aggregates_generation`: of the host, as it was decided on; a claim holds for the same one.
    """

    node_id: int
    host: str
    node: str
    availability_zone: str
    aggregates_generation: int = 0
    failing: bool = False


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Candidates, best first; `removed` names the filters in their order and how many hosts each took out.

    `nearest`: without candidates, in words what the host that came nearest lacks.
    """

    candidates: list[Candidate]
    hosts: int
    removed: list[tuple[str, int]]
    nearest: str | None = None

    def explain(self) -> str:
        """For the owner of a server that found no host: names no host."""
        if not self.hosts:
            return "No valid host was found. There are no compute hosts."
        said = ", ".join(f"{name} removed {count}" for name, count in self.removed if count)
        text = "No valid host was found."
        if said:
            text += f" Of {self.hosts} host{'s' if self.hosts != 1 else ''} {said}."
        if self.nearest:
            text += f" The nearest one {self.nearest}."
        return text
