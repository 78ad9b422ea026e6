"""A host's report and its row: what it has, how much of it may be given away, and whether what is given adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
import structlog

from kilonova.agent.allocation import Allocation
from kilonova.agent.driver import Inventory, Resource
from kilonova.bus.messages import HostReport
from kilonova.compute import claims
from kilonova.db import pci_devices
from kilonova.db.engine import Tx
from kilonova.db.tables import compute_nodes, node_resources
from kilonova.db.types import database_seconds
from kilonova.world import World

log = structlog.get_logger()

DRIFT = "allocations of a host were not the sum of its servers"
"""Logged when a report had to put them right: it never happens while claims are exact, so tests look for it."""


async def ensure_node(tx: Tx, world: World, service_id: int, report: HostReport, allocation: Allocation) -> None:
    """Make the node's row or change it to what the host reports.

    What its servers hold is by the database, never by the host: a guest that is being built or
    removed counts once, whatever the host shows of it. A sum that is off is put right, and logged.
    """
    inventory, c = report.inventory, compute_nodes.c
    query = (
        sa.select(
            c.id, c.cpu_allocation_ratio, c.ram_allocation_ratio, c.disk_allocation_ratio, c.running_vms, c.vcpus_used,
            c.memory_mb_used, c.local_gb_used,
        )
        .where(c.host == report.host, c.hypervisor_hostname == inventory.hypervisor_hostname)
        .with_for_update()
    )  # fmt: skip
    row = (await tx.execute(query)).first()
    ratios = allocation.ratios(tuple(row[1:4]) if row is not None else None)
    values = _values(inventory, allocation, ratios) | {"updated_at": world.now(), "changed": database_seconds()}
    if row is None:
        made = await tx.execute(
            sa.insert(compute_nodes).values(
                uuid=world.uuid(),
                service_id=service_id,
                host=report.host,
                hypervisor_hostname=inventory.hypervisor_hostname,
                created_at=world.now(),
                **values,
            )
        )
        assert made.inserted_primary_key is not None
        await _set_resources(tx, int(made.inserted_primary_key[0]), inventory, {})
        await pci_devices.set_devices(tx, int(made.inserted_primary_key[0]), inventory.pci_devices)
        return
    held = await claims.held_on(tx, report.host, inventory.hypervisor_hostname)
    right = {name: value for name, value in asdict(held).items() if name != "resources"}
    was = {name: getattr(row, name) for name in right}
    if was != right:
        log.error(DRIFT, host=report.host, was=was, now=right)
    await tx.execute(
        sa.update(compute_nodes).where(c.id == row.id).values(**values, **right, generation=c.generation + 1)
    )
    await _set_resources(tx, row.id, inventory, held.resources)
    await pci_devices.set_devices(tx, row.id, inventory.pci_devices)


def _values(inventory: Inventory, allocation: Allocation, ratios: tuple[float, float, float]) -> dict[str, Any]:
    cpu, ram, disk = ratios
    return {
        "hypervisor_type": inventory.hypervisor_type,
        "hypervisor_version": inventory.hypervisor_version,
        "vcpus": inventory.vcpus,
        "memory_mb": inventory.memory_mb,
        "local_gb": inventory.local_gb,
        "cpu_allocation_ratio": cpu,
        "ram_allocation_ratio": ram,
        "disk_allocation_ratio": disk,
        "vcpus_max": int((inventory.vcpus - allocation.reserved_cpus) * cpu),
        "memory_mb_max": int((inventory.memory_mb - allocation.reserved_memory_mb) * ram),
        "local_gb_max": int((inventory.local_gb - -(-allocation.reserved_disk_mb // 1024)) * disk),
        "disk_available_least": inventory.disk_available_least,
        "cpu_info": inventory.cpu_info,
        "traits": list(inventory.traits),
        "supported_instances": [list(kind) for kind in inventory.supported],
        "metrics": inventory.metrics or None,
        "host_ip": inventory.host_ip,
        "uptime": inventory.uptime,
    }


async def _set_resources(tx: Tx, node_id: int, inventory: Inventory, held: dict[str, int]) -> None:
    """The classes that the host reports, and those that its servers hold all the same."""
    c = node_resources.c
    rows = await tx.execute(sa.select(c.resource_class, c.total, c.max, c.used).where(c.node_id == node_id))
    known = {row.resource_class: (row.total, row.max, row.used) for row in rows}
    was = {kind: used for kind, (_, _, used) in known.items() if used}
    if was != held:
        log.error(DRIFT, node_id=node_id, was=was, now=held)
    devices = Counter(device.resource_class for device in inventory.pci_devices)
    resources = inventory.resources | {kind: Resource(total=count) for kind, count in devices.items()}
    wanted = {kind: (one.total, one.max, held.get(kind, 0)) for kind, one in resources.items()}
    wanted |= {kind: (0, 0, amount) for kind, amount in held.items() if kind not in wanted}
    for kind in known.keys() - wanted.keys():
        await tx.execute(sa.delete(node_resources).where(c.node_id == node_id, c.resource_class == kind))
    for kind, (total, most, used) in wanted.items():
        if kind not in known:
            await tx.execute(
                sa.insert(node_resources).values(node_id=node_id, resource_class=kind, total=total, max=most, used=used)
            )
        elif known[kind] != (total, most, used):
            await tx.execute(
                sa.update(node_resources)
                .where(c.node_id == node_id, c.resource_class == kind)
                .values(total=total, max=most, used=used)
            )
