"""A host's report and its row: what it has, how much of it may be given away, and whether what is given adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
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

_FIGURES = (
    "hypervisor_type", "hypervisor_version", "vcpus", "memory_mb", "local_gb", "cpu_allocation_ratio",
    "ram_allocation_ratio", "disk_allocation_ratio", "vcpus_max", "memory_mb_max", "local_gb_max",
    "disk_available_least", "cpu_info", "traits", "supported_instances", "metrics", "numa_cells", "host_ip", "uptime",
)  # fmt: skip
_SUMS = ("running_vms", "vcpus_used", "memory_mb_used", "local_gb_used")
_c = compute_nodes.c
_NODE = sa.select(_c.id, *(_c[name] for name in (*_FIGURES, *_SUMS)))


async def ensure_node(tx: Tx, world: World, service_id: int, report: HostReport, allocation: Allocation) -> None:
    """Make the node's row or change it to what the host reports; a report that says nothing new writes nothing.

    What its servers hold is by the database, never by the host: a guest that is being built or
    removed counts once, whatever the host shows of it. A sum that is off is put right, and logged.
    """
    inventory = report.inventory
    row = await _locked(tx, report.host, inventory.hypervisor_hostname)
    before = (row.cpu_allocation_ratio, row.ram_allocation_ratio, row.disk_allocation_ratio) if row else None
    values = _values(inventory, allocation, allocation.ratios(before))
    devices = Counter(device.resource_class for device in inventory.pci_devices)
    resources = inventory.resources | {kind: Resource(total=count) for kind, count in devices.items()}
    if row is None:
        made = await tx.execute(
            sa.insert(compute_nodes).values(
                uuid=world.uuid(),
                service_id=service_id,
                host=report.host,
                hypervisor_hostname=inventory.hypervisor_hostname,
                created_at=world.now(),
                updated_at=world.now(),
                changed=database_seconds(),
                **values,
            )
        )
        assert made.inserted_primary_key is not None
        await _set_resources(tx, int(made.inserted_primary_key[0]), resources, {})
        await pci_devices.set_devices(tx, int(made.inserted_primary_key[0]), inventory.pci_devices)
        return
    held = await _held(tx, report.host, inventory.hypervisor_hostname)
    changes = {name: value for name, value in values.items() if getattr(row, name) != value} | _off(row, held)
    others = await _set_resources(tx, row.id, resources, held.resources)
    await change_node(tx, world, row.id, changes, others)
    await pci_devices.set_devices(tx, row.id, inventory.pci_devices)


async def put_right(tx: Tx, world: World, host: str, hypervisor_hostname: str) -> None:
    """What the node's servers hold, in case that it is not their sum."""
    row = await _locked(tx, host, hypervisor_hostname)
    if row is None:
        return
    held = await _held(tx, host, hypervisor_hostname)
    others = await _set_resources(tx, row.id, None, held.resources)
    await change_node(tx, world, row.id, _off(row, held), others)


async def _locked(tx: Tx, host: str, hypervisor_hostname: str) -> Any:
    mine = (_c.host == host, _c.hypervisor_hostname == hypervisor_hostname)
    return (await tx.execute(_NODE.where(*mine).with_for_update())).first()


async def _held(tx: Tx, host: str, hypervisor_hostname: str) -> claims.Held:
    return (await claims.held_on(tx, [host])).get((host, hypervisor_hostname), claims.NOTHING)


def _off(row: Any, held: claims.Held) -> dict[str, int]:
    """The sums that are not what the servers hold, as they should be."""
    off = {name: getattr(held, name) for name in _SUMS if getattr(row, name) != getattr(held, name)}
    if off:
        log.error(DRIFT, node_id=row.id, was={name: getattr(row, name) for name in off}, now=off)
    return off


async def change_node(tx: Tx, world: World, node_id: int, changes: dict[str, Any], others: bool = False) -> None:
    """`others`: its resources of other classes have changed."""
    values: dict[str, Any] = changes
    if others or changes.keys() - {"uptime"}:
        # Schedulers read those nodes anew.
        values = changes | {"generation": _c.generation + 1, "changed": database_seconds()}
    if values:
        values = values | {"updated_at": world.now()}
        await tx.execute(sa.update(compute_nodes).where(_c.id == node_id).values(**values))


def _values(inventory: Inventory, allocation: Allocation, ratios: tuple[float, float, float]) -> dict[str, Any]:
    cpu, ram, disk = ratios
    values = {
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
        "traits": inventory.traits,
        "supported_instances": inventory.supported,
        "metrics": inventory.metrics or None,
        "numa_cells": inventory.cells or None,
        "host_ip": inventory.host_ip,
        "uptime": inventory.uptime,
    }
    # As the database will have them, so that the two can be compared: a tuple comes back as a list.
    same: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values))
    return same


async def _set_resources(
    tx: Tx, node_id: int, resources: Mapping[str, Resource] | None, held: Mapping[str, int]
) -> bool:
    """The classes that the host reports (None: as before), and those that its servers hold all the same.

    Whether that changed anything.
    """
    c = node_resources.c
    rows = await tx.execute(sa.select(c.resource_class, c.total, c.max, c.used).where(c.node_id == node_id))
    known = {row.resource_class: (row.total, row.max, row.used) for row in rows}
    was = {kind: used for kind, (_, _, used) in known.items() if used}
    if was != held:
        log.error(DRIFT, node_id=node_id, was=was, now=held)
    totals = {kind: (total, most) for kind, (total, most, _) in known.items()}
    if resources is not None:
        totals = {kind: (one.total, one.max) for kind, one in resources.items()}
    wanted = {kind: (*total, held.get(kind, 0)) for kind, total in totals.items()}
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
    return known != wanted
