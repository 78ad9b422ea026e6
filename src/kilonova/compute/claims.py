"""Resources of hosts, claimed and given back exactly.

A claim is one UPDATE guarded on capacity, so over-commit is impossible however
many schedulers there are. The server's `claimed` flag changes in the same
transaction; the sum over servers is what a node's `*_used` must equal.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes as nodes

_NEEDS = ("my_vcpus", "my_memory_mb", "my_disk_gb")


def _needs(server: Server) -> dict[str, Any]:
    return dict(zip(_NEEDS, (server.vcpus, server.memory_mb, server.disk_gb), strict=True))


_VCPUS, _MEMORY_MB, _DISK_GB = (sa.bindparam(name, type_=sa.Integer()) for name in _NEEDS)
_CLAIM = (
    sa.update(nodes)
    .where(
        nodes.c.id == sa.bindparam("my_node"),
        nodes.c.vcpus_used + _VCPUS <= nodes.c.vcpus_max,
        nodes.c.memory_mb_used + _MEMORY_MB <= nodes.c.memory_mb_max,
        nodes.c.local_gb_used + _DISK_GB <= nodes.c.local_gb_max,
    )
    .values(
        vcpus_used=nodes.c.vcpus_used + _VCPUS,
        memory_mb_used=nodes.c.memory_mb_used + _MEMORY_MB,
        local_gb_used=nodes.c.local_gb_used + _DISK_GB,
        running_vms=nodes.c.running_vms + 1,
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
    )
)


async def claim(tx: Tx, server: Server, node_id: int) -> bool:
    """Take what the server needs from the node; False when it is not there any more."""
    result = await tx.execute(_CLAIM, _needs(server) | {"my_node": node_id})
    return bool(result.rowcount)


async def release(tx: Tx, server: Server) -> None:
    """Give back what the server holds. The caller clears `claimed` in the same transaction, guarded by it."""
    await tx.execute(_RELEASE, _needs(server) | {"my_host": server.host, "my_node": server.node})
