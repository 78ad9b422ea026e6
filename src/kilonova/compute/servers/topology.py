"""The NUMA topology that a guest sees."""

from __future__ import annotations

from typing import Any

from kilonova.db.servers import Server


def topology(server: Server, *, with_host: bool) -> dict[str, Any]:
    """One node for a server that asked for it, which is all that a flavor or an image may ask for; else none.

    `with_host`: also where on the host it is. Nothing is pinned, so that its node has the number of the guest's own.
    """
    specs = server.flavor.get("extra_specs") or {}
    properties = (server.image or {}).get("properties") or {}
    if not (specs.get("hw:numa_nodes") or properties.get("hw_numa_nodes")):
        return {"nodes": [], "pagesize_kb": None}
    node: dict[str, Any] = {
        "vcpu_set": list(range(server.vcpus)),
        "siblings": [],
        "memory_mb": server.memory_mb,
    }
    if with_host:
        node |= {"host_node": 0, "cpu_pinning": {}}
    return {"nodes": [node], "pagesize_kb": None}
