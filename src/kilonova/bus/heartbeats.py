"""What a role without a hypervisor says of itself: that it is there."""

from __future__ import annotations

import contextlib

from kilonova.bus import Bus
from kilonova.bus.messages import Heartbeat
from kilonova.errors import Transient
from kilonova.world import World


async def beat(bus: Bus, world: World, heartbeat: Heartbeat, interval: float) -> None:
    """Send `heartbeat` every `interval` seconds; one that the broker does not take is made good by the next.

    At first more often: while no conductor has listened yet nobody keeps what it is sent, and it may start after us.
    """
    pause = min(1.0, interval)
    while True:
        with contextlib.suppress(Transient):
            await bus.send("conductor", heartbeat)
        await world.sleep(pause)
        pause = min(2 * pause, interval)
