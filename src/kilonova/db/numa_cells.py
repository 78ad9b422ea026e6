"""What servers have of hosts' NUMA cells: it stands in their claims, so that nothing else can be off."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import compute_nodes, instances
from kilonova.numa import Asked, Placed, fit, read_cells, read_placed

_n, _i = compute_nodes.c, instances.c


async def place(tx: Tx, asked: Asked, node_id: int) -> tuple[Placed, ...] | str:
    """Where a server goes, or in words why it does not. Exact while the caller has the node's row locked."""
    query = sa.select(
        _n.host, _n.hypervisor_hostname, _n.numa_cells, _n.cpu_allocation_ratio, _n.ram_allocation_ratio
    ).where(_n.id == node_id)
    node = (await tx.execute(query)).one()
    taken = await taken_on(tx, node.host, node.hypervisor_hostname)
    return fit(
        asked,
        read_cells(node.numa_cells),
        taken,
        cpu_ratio=node.cpu_allocation_ratio,
        memory_ratio=node.ram_allocation_ratio,
    )


async def taken_on(tx: Tx, host: str, node: str) -> list[Placed]:
    """By all servers that hold a claim there."""
    mine = (_i.host == host, _i.node == node, _i.claimed.is_(True), _i.deleted == 0, _i.claim.is_not(None))
    rows = await tx.execute(sa.select(_i.claim).where(*mine))
    return [one for row in rows for one in read_placed((row.claim or {}).get("numa"))]
