"""What a role without a hypervisor says of itself: that it is there."""

from __future__ import annotations

import contextlib

from kilonova.bus import Bus
from kilonova.bus.messages import Heartbeat
from kilonova.errors import Transient
from kilonova.world import World


async def beat(bus: Bus, world: World, heartbeat: Heartbeat, interval: float) -> None:
    """Send `heartbeat` every `interval` seconds; one that the broker does not take is made good by the next."""
    while True:
        with contextlib.suppress(Transient):
            await bus.send("conductor", heartbeat)
        await world.sleep(interval)
