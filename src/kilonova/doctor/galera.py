"""A database that is one of several nodes: whether this one takes part, and what is left when it goes."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from kilonova.doctor.findings import Finding, ok, warning, wrong

CHECK = "database: cluster"
REFUSED = 1047
_SYNCED, _DONOR = "4", "2"
_ENOUGH = 3
"""Nodes, of which one can be lost and the rest is more than half."""
_REJOIN = (
    "a node that is Primary in the balancer's place for this one; this one joins by itself once it reaches the others "
    "(wsrep_cluster_address). Where none is Primary: SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES' at the one "
    "with the highest wsrep_last_committed, and there alone"
)


async def look(connection: AsyncConnection) -> Finding | None:
    """None: it is no node of Galera's. Asks for nothing but what a node without quorum answers too."""
    told: dict[str, str] = {}
    for kind in ("VARIABLES", "STATUS"):
        shown = await connection.execute(sa.text(f"SHOW {kind} LIKE 'wsrep%'"))
        told |= {str(name): str(value) for name, value in shown}
    return judge(told) if told.get("wsrep_on") == "ON" else None


def refuses(place: str) -> Finding:
    """Of a node that does not even let itself be asked."""
    return wrong(
        CHECK,
        f"{place} answers 1047 to all statements",
        f"there: SHOW VARIABLES LIKE 'wsrep_reject_queries', which has to be NONE; else {_REJOIN}",
    )


def judge(told: Mapping[str, str]) -> Finding:
    """From a node's `wsrep_` variables and status. `wrong`: it answers every statement with error 1047."""
    node, state = told["wsrep_node_name"], told["wsrep_local_state_comment"]
    size = int(told["wsrep_cluster_size"])
    if told["wsrep_cluster_status"] != "Primary" or told["wsrep_ready"] != "ON":
        text = (
            f"node '{node}' takes no part ({told['wsrep_cluster_status']}, {state}): it answers 1047 to all statements"
        )
        return wrong(CHECK, text, _REJOIN)
    if told["wsrep_local_state"] != _SYNCED:
        what = "fills another node or was taken out" if told["wsrep_local_state"] == _DONOR else "has not caught up"
        text = f"node '{node}' is {state}: it {what}, and what it answers may be old"
        fix = "the balancer's next node until this one is Synced (SHOW STATUS LIKE 'wsrep_local_state_comment')"
        if told.get("wsrep_desync") == "ON":
            fix = f"SET GLOBAL wsrep_desync = OFF at '{node}'; until then the balancer's next node"
        return warning(CHECK, text, fix)
    if size < _ENOUGH:
        text = f"node '{node}' is Primary and Synced, but only one of {size}: the cluster stops when one is lost"
        return warning(CHECK, text, "start the nodes that are away; three are the least that can lose one")
    return ok(CHECK, f"node '{node}' is Primary and Synced, one of {size}")
