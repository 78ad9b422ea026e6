"""The loop of reconcilers that look at everything now and then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from kilonova.world import World

log = structlog.get_logger()


async def periodically(world: World, period: float, look: Callable[[], Awaitable[object]], failed: str) -> None:
    """Call `look` about every `period` seconds, apart from others' times; what it raises is logged as `failed`."""
    while True:
        await world.sleep(period * (0.75 + 0.5 * world.random.random()))
        try:
            await look()
        except Exception as error:
            log.warning(failed, error=str(error))
