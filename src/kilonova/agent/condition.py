"""How a host is, for whoever looks after the deployment: its clock, and whether its hypervisor answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from kilonova.agent.driver import Driver
from kilonova.bus.messages import Answer
from kilonova.errors import KilonovaError


async def condition(driver: Driver, clock: Callable[[], float] = time.time) -> Answer:
    """`clock`: seconds since 1970, by this host; `hypervisor`, or `failure` in its stead."""
    data: dict[str, object] = {}
    try:
        found = await driver.inventory()
        data["hypervisor"] = f"{found.hypervisor_type} {found.hypervisor_version}"
    except KilonovaError as error:
        data["failure"] = error.message
    # Last: whoever asks takes it for the time at which it was answered.
    data["clock"] = float(clock())
    return Answer(data=data)
