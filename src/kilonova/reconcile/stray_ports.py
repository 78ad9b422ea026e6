"""Ports of servers that are gone: a process that was paused while it made one could not be held back."""

from __future__ import annotations

import structlog

from kilonova.conductor.pace import Pace
from kilonova.db import servers
from kilonova.reconcile.periodic import periodically
from kilonova.runtime import Runtime
from kilonova.workflows.steps import ports

log = structlog.get_logger()

CHUNK = 500


async def release_ports_of(rt: Runtime, server_uuid: str) -> bool:
    """Give back the ports of a server whose row says that it was deleted; False when there is no such row."""
    assert rt.network is not None
    server = await rt.db.read(lambda tx: servers.get(tx, server_uuid, deleted=True))
    if server is None or not server.deleted:
        return False
    await ports.release(rt.network, server_uuid, ports.foreign_ports(server))
    return True


class StrayPorts:
    """Touches only ports of servers that were ours and were deleted; those of servers we never knew are others'."""

    def __init__(self, rt: Runtime, pace: Pace) -> None:
        self.rt = rt
        self.period = pace.stray_ports

    async def loop(self) -> None:
        await periodically(self.rt.world, self.period, self.once, "stray ports not looked for")

    async def once(self) -> int:
        """Returns how many servers had left ports behind."""
        assert self.rt.network is not None
        found = await self.rt.network.find("ports", {"fields": ["id", "device_id", "device_owner"]})
        devices = sorted({p["device_id"] for p in found if p["device_owner"].startswith("compute:") and p["device_id"]})
        left = 0
        for start in range(0, len(devices), CHUNK):
            chunk = devices[start : start + CHUNK]
            rows = await self.rt.db.read(lambda tx, chunk=chunk: servers.get_many(tx, chunk))  # type: ignore[misc] # bound now
            for server in rows:
                if server.deleted:
                    log.warning("a deleted server had ports", server=server.uuid)
                    left += await release_ports_of(self.rt, server.uuid)
        return left
