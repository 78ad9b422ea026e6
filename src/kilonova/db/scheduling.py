"""Rows of nodes and aggregates as the scheduler sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import aggregate_hosts, aggregate_metadata, aggregates, compute_nodes, node_resources
from kilonova.scheduler.node import Aggregate, Node

_n = compute_nodes.c
_COLUMNS = (
    _n.id, _n.uuid, _n.service_id, _n.host, _n.hypervisor_hostname, _n.hypervisor_type, _n.hypervisor_version, _n.vcpus,
    _n.memory_mb, _n.local_gb, _n.vcpus_max, _n.memory_mb_max, _n.local_gb_max, _n.vcpus_used, _n.memory_mb_used,
    _n.local_gb_used, _n.running_vms, _n.failed_builds, _n.cpu_allocation_ratio, _n.ram_allocation_ratio,
    _n.disk_allocation_ratio, _n.disk_available_least, _n.cpu_info, _n.traits, _n.supported_instances, _n.metrics,
    _n.numa_cells, _n.host_ip, _n.changed,
)  # fmt: skip
SELECT = sa.select(
    *_COLUMNS,
    node_resources.c.resource_class,
    node_resources.c.max.label("resource_max"),
    node_resources.c.used.label("resource_used"),
).outerjoin_from(compute_nodes, node_resources, node_resources.c.node_id == _n.id)


def _node(row: Any) -> Node:
    return Node(
        id=row.id,
        uuid=row.uuid,
        service_id=row.service_id,
        host=row.host,
        node=row.hypervisor_hostname,
        hypervisor_type=row.hypervisor_type,
        hypervisor_version=row.hypervisor_version,
        vcpus=row.vcpus,
        memory_mb=row.memory_mb,
        local_gb=row.local_gb,
        vcpus_max=row.vcpus_max,
        memory_mb_max=row.memory_mb_max,
        disk_gb_max=row.local_gb_max,
        vcpus_used=row.vcpus_used,
        memory_mb_used=row.memory_mb_used,
        disk_gb_used=row.local_gb_used,
        running_vms=row.running_vms,
        failed_builds=row.failed_builds,
        vcpus_ratio=row.cpu_allocation_ratio,
        memory_ratio=row.ram_allocation_ratio,
        disk_ratio=row.disk_allocation_ratio,
        disk_available_least=row.disk_available_least,
        cpu_info=row.cpu_info,
        traits=frozenset(row.traits),
        supported=tuple((kind[0], kind[1], kind[2]) for kind in row.supported_instances or ()),
        metrics=row.metrics or {},
        numa_cells=row.numa_cells or (),
        host_ip=row.host_ip or "",
        resources={} if row.resource_class is None else {row.resource_class: (row.resource_max, row.resource_used)},
    )


def nodes_of(rows: Sequence[Any]) -> list[Node]:
    """One per node; a node with several resources comes in several rows."""
    found: dict[int, Node] = {}
    for row in rows:
        known = found.get(row.id)
        if known is None:
            found[row.id] = _node(row)
        else:
            assert isinstance(known.resources, dict)
            known.resources[row.resource_class] = (row.resource_max, row.resource_used)
    return list(found.values())


async def read_node(tx: Tx, host: str, node: str) -> Node | None:
    rows = list(await tx.execute(SELECT.where(_n.host == host, _n.hypervisor_hostname == node)))
    return nodes_of(rows)[0] if rows else None


async def read_generations(tx: Tx) -> dict[str, int]:
    """By host, how often its aggregates have changed; those are left out that never were in one.

    To be read before the aggregates: a change between the two is then refused by claims, and not overlooked.
    """
    rows = await tx.execute(sa.select(_n.host, _n.aggregates_generation).where(_n.aggregates_generation > 0))
    return {row.host: row.aggregates_generation for row in rows}


async def read_aggregates(tx: Tx) -> list[Aggregate]:
    hosts: dict[int, set[str]] = {}
    for row in await tx.execute(sa.select(aggregate_hosts)):
        hosts.setdefault(row.aggregate_id, set()).add(row.host)
    values: dict[int, dict[str, str]] = {}
    for row in await tx.execute(sa.select(aggregate_metadata)):
        values.setdefault(row.aggregate_id, {})[row.key] = row.value
    return [
        Aggregate(id=row.id, name=row.name, hosts=frozenset(hosts.get(row.id, ())), metadata=values.get(row.id, {}))
        for row in await tx.execute(sa.select(aggregates.c.id, aggregates.c.name))
    ]
