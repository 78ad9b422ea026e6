"""Resources of hosts, claimed and given back exactly.

A claim is one UPDATE guarded on capacity, so over-commit is impossible however
many schedulers there are. The server's `claimed` flag changes in the same
transaction; the sum over servers is what a node's `*_used` must equal.
"""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes as nodes


async def claim(tx: Tx, server: Server, node_id: int) -> bool:
    """Take what the server needs from the node; False when it is not there any more."""
    result = await tx.execute(
        sa.update(nodes)
        .where(
            nodes.c.id == node_id,
            nodes.c.vcpus_used + server.vcpus <= nodes.c.vcpus_max,
            nodes.c.memory_mb_used + server.memory_mb <= nodes.c.memory_mb_max,
            nodes.c.local_gb_used + server.disk_gb <= nodes.c.local_gb_max,
        )
        .values(
            vcpus_used=nodes.c.vcpus_used + server.vcpus,
            memory_mb_used=nodes.c.memory_mb_used + server.memory_mb,
            local_gb_used=nodes.c.local_gb_used + server.disk_gb,
            running_vms=nodes.c.running_vms + 1,
        )
    )
    return bool(result.rowcount)


async def release(tx: Tx, server: Server) -> None:
    """Give back what the server holds. The caller clears `claimed` in the same transaction, guarded by it."""
    await tx.execute(
        sa.update(nodes)
        .where(nodes.c.host == server.host, nodes.c.hypervisor_hostname == server.node)
        .values(
            vcpus_used=nodes.c.vcpus_used - server.vcpus,
            memory_mb_used=nodes.c.memory_mb_used - server.memory_mb,
            local_gb_used=nodes.c.local_gb_used - server.disk_gb,
            running_vms=nodes.c.running_vms - 1,
        )
    )
