"""When a role says that it is there."""

from __future__ import annotations

import pytest

from kilonova.bus.heartbeats import beat
from kilonova.bus.memory import MemoryBus
from kilonova.bus.messages import Heartbeat, Message
from kilonova.errors import Transient
from kilonova.world import World


class Over(Exception):
    """The time of the test."""


class Minute(World):
    """One that passes at once."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.time = 0.0

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        if self.time > 60:
            raise Over


class Away(MemoryBus):
    """A broker that takes nothing."""

    def __init__(self, world: Minute) -> None:
        super().__init__()
        self._world = world
        self.asked: list[float] = []

    async def send(self, address: str, message: Message) -> None:
        self.asked.append(self._world.time)
        raise Transient("The message broker cannot be reached.")


@pytest.mark.parametrize(
    ("interval", "times"),
    [(10, [0, 1, 3, 7, 15, 25, 35, 45, 55]), (0.5, [each / 2 for each in range(121)])],
)
async def test_it_is_said_often_at_first_and_whatever_the_broker_does(interval: float, times: list[float]) -> None:
    world = Minute()
    bus = Away(world)
    with pytest.raises(Over):
        await beat(bus, world, Heartbeat(host="a", binary="nova-scheduler", incarnation="1"), interval)
    assert bus.asked == times
