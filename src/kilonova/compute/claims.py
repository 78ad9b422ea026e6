"""Resources of hosts and places in server groups, claimed and given back exactly.

A claim on a node is one UPDATE guarded on capacity, so over-commit is impossible
however many schedulers there are. The server's `claimed` flag changes in the same
transaction; the sum over servers is what a node's `*_used` must equal. A place in
a group is a counter of (group, host), changed under the lock of the group's row.

Locks are taken in this order: project, group, host, server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from kilonova.compute.needs import Needs, claimed_by
from kilonova.db import numa_cells, pci_devices, server_groups, servers
from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.server_groups import ServerGroup
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes as nodes
from kilonova.db.tables import instance_group_hosts as places
from kilonova.db.tables import instances, node_resources
from kilonova.db.types import database_seconds
from kilonova.numa import Placed
from kilonova.scheduler.request import AFFINITY, ANTI_AFFINITY

log = structlog.get_logger()

_NEEDS = ("my_vcpus", "my_memory_mb", "my_disk_gb")


def _amounts(needs: Needs) -> dict[str, Any]:
    return dict(zip(_NEEDS, (needs.vcpus, needs.memory_mb, needs.disk_gb), strict=True))


_VCPUS, _MEMORY_MB, _DISK_GB = (sa.bindparam(name, type_=sa.Integer()) for name in _NEEDS)
# What is not asked for is not looked at: a host may have been given less than its servers hold.
_CLAIM = (
    sa.update(nodes)
    .where(
        nodes.c.id == sa.bindparam("my_node"),
        nodes.c.aggregates_generation == sa.bindparam("my_generation", type_=sa.BigInteger()),
        sa.or_(_VCPUS == 0, nodes.c.vcpus_used + _VCPUS <= nodes.c.vcpus_max),
        sa.or_(_MEMORY_MB == 0, nodes.c.memory_mb_used + _MEMORY_MB <= nodes.c.memory_mb_max),
        sa.or_(_DISK_GB == 0, nodes.c.local_gb_used + _DISK_GB <= nodes.c.local_gb_max),
    )
    .values(
        vcpus_used=nodes.c.vcpus_used + _VCPUS,
        memory_mb_used=nodes.c.memory_mb_used + _MEMORY_MB,
        local_gb_used=nodes.c.local_gb_used + _DISK_GB,
        running_vms=nodes.c.running_vms + 1,
        changed=database_seconds(),
    )
)
_RELEASE = (
    sa.update(nodes)
    .where(nodes.c.host == sa.bindparam("my_host"), nodes.c.hypervisor_hostname == sa.bindparam("my_node"))
    .values(
        vcpus_used=nodes.c.vcpus_used - _VCPUS,
        memory_mb_used=nodes.c.memory_mb_used - _MEMORY_MB,
        local_gb_used=nodes.c.local_gb_used - _DISK_GB,
        running_vms=nodes.c.running_vms - 1,
        failed_builds=nodes.c.failed_builds + sa.bindparam("my_failure", type_=sa.Integer()),
        changed=database_seconds(),
    )
)


async def claim(tx: Tx, needs: Needs, node_id: int, generation: int = 0) -> bool:
    """Take what is needed from the node; False, and nothing taken, when it is not there any more.

    `generation`: of its host's aggregates, as it was decided on; likewise False when they have changed since.
    """
    if not (await tx.execute(_CLAIM, _amounts(needs) | {"my_node": node_id, "my_generation": generation})).rowcount:
        return False
    c = node_resources.c
    taken: dict[str, int] = {}
    for kind, amount in needs.resources.items():
        statement = (
            sa.update(node_resources)
            .where(c.node_id == node_id, c.resource_class == kind, c.used + amount <= c.max)
            .values(used=c.used + amount)
        )
        if not (await tx.execute(statement)).rowcount:
            await _give_back(tx, sa.select(nodes.c.id).where(nodes.c.id == node_id), taken)
            await _release_node(tx, needs, nodes.c.id == node_id)
            return False
        taken[kind] = amount
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a claim turned out to be. `numa`: where the server's cells lie, if it asked for any."""

    numa: tuple[Placed, ...] = ()


async def take(
    tx: Tx,
    needs: Needs,
    node_id: int,
    group: ServerGroup | None,
    host: str,
    generation: int = 0,
    server_uuid: str = "",
) -> Taken | None:
    """Claim a place in the group and the node's resources; None, and nothing taken, when either is not there.

    `generation`: see `claim`. `server_uuid`: who gets the PCI devices.
    """
    if group is not None and not await join(tx, group, host):
        return None
    if await claim(tx, needs, node_id, generation):
        placed = await numa_cells.place(tx, needs.numa, node_id) if needs.numa is not None else ()
        if not isinstance(placed, str) and await pci_devices.assign(tx, node_id, needs.devices, server_uuid):
            return Taken(numa=placed)
        if needs.devices:
            await pci_devices.release(tx, server_uuid)
        await _give_back(tx, sa.select(nodes.c.id).where(nodes.c.id == node_id), needs.resources)
        await _release_node(tx, needs, nodes.c.id == node_id)
    if group is not None:
        await leave(tx, group, host)
    return None


async def moved(tx: Tx, node_id: int, generation: int) -> bool:
    """Whether what the aggregates of the node's host say has changed since that generation."""
    query = sa.select(nodes.c.aggregates_generation).where(nodes.c.id == node_id)
    return (await tx.execute(query)).scalar_one_or_none() not in (None, generation)


async def forgive(tx: Tx, node_id: int) -> None:
    """The node has built a server: what failed before does not count any more."""
    await tx.execute(sa.update(nodes).where(nodes.c.id == node_id).values(failed_builds=0, changed=database_seconds()))


async def _release_node(tx: Tx, needs: Needs, which: sa.ColumnElement[bool]) -> None:
    await tx.execute(
        sa.update(nodes)
        .where(which)
        .values(
            vcpus_used=nodes.c.vcpus_used - needs.vcpus,
            memory_mb_used=nodes.c.memory_mb_used - needs.memory_mb,
            local_gb_used=nodes.c.local_gb_used - needs.disk_gb,
            running_vms=nodes.c.running_vms - 1,
        )
    )


async def _give_back(tx: Tx, node_ids: sa.Select[Any], resources: dict[str, int]) -> None:
    c = node_resources.c
    for kind, amount in resources.items():
        await tx.execute(
            sa.update(node_resources)
            .where(c.node_id.in_(node_ids), c.resource_class == kind)
            .values(used=c.used - amount)
        )


async def release(tx: Tx, server: Server, *, failed: bool = False) -> None:
    """Give back what the server holds. The caller clears `claimed` in the same transaction, guarded by it.

    `failed`: because the host could not build it, which is counted there.
    """
    if server.server_group is not None and server.host is not None:
        group = await lock_group(tx, server)
        if group is not None:
            await leave(tx, group, server.host)
    held = claimed_by(server)
    where = {"my_host": server.host, "my_node": server.node}
    await tx.execute(_RELEASE, _amounts(held) | where | {"my_failure": int(failed)})
    if held.resources:
        mine = sa.select(nodes.c.id).where(nodes.c.host == server.host, nodes.c.hypervisor_hostname == server.node)
        await _give_back(tx, mine, held.resources)
    if (server.claim or {}).get("pci_devices"):
        await pci_devices.release(tx, server.uuid)


# -- groups
async def lock_group(tx: Tx, server: Server) -> ServerGroup | None:
    """The server's group, nobody else claiming places in it until the transaction ends; None when it has none."""
    if server.server_group is None:
        return None
    return await server_groups.get(tx, server.server_group, lock=True)


async def join(tx: Tx, group: ServerGroup, host: str) -> bool:
    """Take a place on the host for a member of the group, which the caller has locked; False when policy forbids it."""
    if group.policy == AFFINITY and set(await server_groups.hosts(tx, group.id)) - {host}:
        return False
    await insert_if_missing(tx, places, {"group_id": group.id, "host": host})
    c = places.c
    statement = sa.update(places).where(c.group_id == group.id, c.host == host).values(servers=c.servers + 1)
    if group.policy == ANTI_AFFINITY:
        statement = statement.where(c.servers < group.max_server_per_host)
    return bool((await tx.execute(statement)).rowcount)


async def leave(tx: Tx, group: ServerGroup, host: str) -> None:
    """Give the place back; the caller has locked the group."""
    c = places.c
    await tx.execute(
        sa.update(places).where(c.group_id == group.id, c.host == host, c.servers > 0).values(servers=c.servers - 1)
    )


# -- keeping watch
@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a node's servers hold together."""

    running_vms: int
    vcpus_used: int
    memory_mb_used: int
    local_gb_used: int
    resources: dict[str, int]

    def plus(self, servers: int, vcpus: int, memory_mb: int, disk_gb: int, resources: Mapping[str, int]) -> Held:
        return Held(
            running_vms=self.running_vms + servers,
            vcpus_used=self.vcpus_used + vcpus,
            memory_mb_used=self.memory_mb_used + memory_mb,
            local_gb_used=self.local_gb_used + disk_gb,
            resources=dict(Counter(self.resources) + Counter(resources)),
        )


NOTHING = Held(running_vms=0, vcpus_used=0, memory_mb_used=0, local_gb_used=0, resources={})


_i = instances.c
_HOLDING = (_i.host.in_(sa.bindparam("hosts", expanding=True)), _i.claimed.is_(True), _i.deleted == 0)
_PLAIN = (
    sa.select(
        _i.host,
        _i.node,
        _i.swap_mb,
        sa.func.count(),
        sa.func.sum(_i.vcpus),
        sa.func.sum(_i.memory_mb),
        sa.func.sum(_i.root_gb + _i.ephemeral_gb),
    )
    .where(*_HOLDING, _i.claim.is_(None))
    .group_by(_i.host, _i.node, _i.swap_mb)
)
_SPECIAL = sa.select(instances).where(*_HOLDING, _i.claim.is_not(None))


async def held_on(tx: Tx, hosts: Sequence[str]) -> dict[tuple[str, str], Held]:
    """By the servers' rows, for each host and node that holds any. Exact while the caller has the nodes' rows locked:
    claims change them first.
    """
    given = {"hosts": list(hosts)}
    found: dict[tuple[str, str], Held] = {}
    for host, node, swap_mb, number, cpus, memory, disk in await tx.execute(_PLAIN, given):
        swap_gb = number * -(-swap_mb // 1024)
        before = found.get((host, node), NOTHING)
        found[host, node] = before.plus(number, int(cpus), int(memory), int(disk) + swap_gb, {})
    for row in await tx.execute(_SPECIAL, given):
        held = claimed_by(servers.from_row(row))
        before = found.get((row.host, row.node), NOTHING)
        found[row.host, row.node] = before.plus(1, held.vcpus, held.memory_mb, held.disk_gb, held.resources)
    return found
