"""Hosts that say nothing new: whether what they refer to is known, and whether what is given of them adds up.

A few statements, whatever the number of hosts; nothing is locked and nothing written as long as all is well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.agent.allocation import Allocation
from kilonova.bus.messages import HostReport, Unchanged
from kilonova.compute import claims
from kilonova.db.engine import Tx
from kilonova.db.hosts import COMPUTE
from kilonova.db.tables import compute_nodes, node_resources, services


@dataclass(slots=True, kw_only=True)
class Findings:
    """`services`: row ids by host. `unknown`: hosts whose report is not what they refer to.

    `moved`: new values of columns by the node's id. `doubtful`: hosts and nodes whose sums looked wrong, which may be
    because a claim came in between.
    """

    services: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    moved: dict[int, dict[str, Any]] = field(default_factory=dict)
    doubtful: list[tuple[str, str]] = field(default_factory=list)


def mark_of(report: HostReport, allocation: Allocation) -> str:
    """What is kept of a report to know it again; `allocation`: the conductor's, which the node's figures depend on."""
    return f"{report.digest}.{summary(allocation)}" if report.digest else ""


def summary(allocation: Allocation) -> str:
    return hashlib.blake2b(msgspec.json.encode(allocation), digest_size=8).hexdigest()


_s, _n, _r = services.c, compute_nodes.c, node_resources.c
_COLUMNS = (
    _s.host, _s.id.label("service_id"), _s.report, _n.id, _n.hypervisor_hostname, _n.uptime, _n.disk_available_least,
    _n.running_vms, _n.vcpus_used, _n.memory_mb_used, _n.local_gb_used,
)  # fmt: skip
_HOSTS = (
    sa.select(*_COLUMNS)
    .outerjoin_from(services, compute_nodes, _n.host == _s.host)
    .where(_s.host.in_(sa.bindparam("hosts", expanding=True)), _s.binary == COMPUTE)
)
_OTHERS = sa.select(_r.node_id, _r.resource_class, _r.used).where(
    _r.node_id.in_(sa.bindparam("nodes", expanding=True)), _r.used != 0
)


async def look(tx: Tx, said: Mapping[str, Unchanged], allocation: Allocation) -> Findings:
    """`said`: by host. `allocation`: the conductor's."""
    mine = summary(allocation)
    found = Findings()
    nodes: dict[int, Any] = {}
    known = set()
    for row in await tx.execute(_HOSTS, {"hosts": list(said)}):
        found.services[row.host] = row.service_id
        one = said[row.host]
        if row.report == f"{one.digest}.{mine}" and row.hypervisor_hostname == one.hypervisor_hostname:
            known.add(row.host)
            nodes[row.id] = row
            moving = {"uptime": one.uptime, "disk_available_least": one.disk_available_least}
            moved = {name: value for name, value in moving.items() if getattr(row, name) != value}
            if moved:
                found.moved[row.id] = moved
    found.unknown = [host for host in said if host not in known]
    if not nodes:
        return found
    used: dict[int, dict[str, int]] = {}
    for node_id, kind, amount in await tx.execute(_OTHERS, {"nodes": list(nodes)}):
        used.setdefault(node_id, {})[kind] = amount
    held = await claims.held_on(tx, sorted(known))
    for node_id, row in nodes.items():
        shown = claims.Held(
            running_vms=row.running_vms,
            vcpus_used=row.vcpus_used,
            memory_mb_used=row.memory_mb_used,
            local_gb_used=row.local_gb_used,
            resources=used.get(node_id, {}),
        )
        if shown != held.get((row.host, row.hypervisor_hostname), claims.NOTHING):
            found.doubtful.append((row.host, row.hypervisor_hostname))
    return found
