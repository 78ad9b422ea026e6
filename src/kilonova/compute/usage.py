"""What projects have used over a time: servers, by the hours between their launch and their end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from kilonova.db.usage import Used

_HOUR = 3600.0


@dataclass(slots=True, kw_only=True)
class ProjectUsage:
    """Hours of servers, and hours times GiB of disk, MiB of memory and VCPUs."""

    project_id: str
    hours: float = 0.0
    local_gb_hours: float = 0.0
    memory_mb_hours: float = 0.0
    vcpu_hours: float = 0.0
    servers: list[Used] = field(default_factory=list)


def hours_of(server: Used, start: dt.datetime, stop: dt.datetime) -> float:
    """Between the two, never less than none."""
    begun = max(server.launched_at, start)
    ended = min(server.terminated_at, stop) if server.terminated_at else stop
    return max((ended - begun).total_seconds(), 0.0) / _HOUR


def by_project(servers: Sequence[Used], start: dt.datetime, stop: dt.datetime) -> list[ProjectUsage]:
    """In the order in which the servers come."""
    found: dict[str, ProjectUsage] = {}
    for server in servers:
        usage = found.setdefault(server.project_id, ProjectUsage(project_id=server.project_id))
        hours = hours_of(server, start, stop)
        usage.hours += hours
        usage.local_gb_hours += server.local_gb * hours
        usage.memory_mb_hours += server.memory_mb * hours
        usage.vcpu_hours += server.vcpus * hours
        usage.servers.append(server)
    return list(found.values())
