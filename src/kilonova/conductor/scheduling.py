"""The scheduler role: keeps the picture of the hosts and answers questions about it."""

from __future__ import annotations

import asyncio

import msgspec

from kilonova import tracing
from kilonova.bus import Bus, Subscription
from kilonova.bus.heartbeats import beat
from kilonova.bus.messages import Answer, Heartbeat, Message, SchedulingQuestion
from kilonova.conductor.host_picture import HostPicture
from kilonova.db.engine import Database
from kilonova.metrics import families
from kilonova.scheduler.pick import place
from kilonova.scheduler.registry import make_rules
from kilonova.settings import ComputeSettings
from kilonova.world import World

MAX_AGE = 1.0
"""Seconds a picture is used; what was given away meanwhile is deducted, and claims are exact anyway."""


class Scheduler:
    def __init__(self, db: Database, bus: Bus, world: World, settings: ComputeSettings) -> None:
        """Raises Invalid for a filter or weigher that is not known."""
        self.bus = bus
        self.world = world
        self.settings = settings
        self.rules = make_rules(settings.scheduler)
        self.hosts = HostPicture(db, world, settings, bus.missed)
        self._subscription: Subscription | None = None
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.listen("scheduler", self._on_message)
        heartbeat = Heartbeat(host=self.settings.host, binary="nova-scheduler", incarnation=self.world.uuid())
        self._beating = asyncio.create_task(beat(self.bus, self.world, heartbeat, self.settings.report_interval))
        families.PICTURE_AGE_SECONDS.set_function(lambda: self.hosts.age)

    async def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.close()

    async def _on_message(self, message: Message) -> Answer | None:
        if not isinstance(message, SchedulingQuestion):
            return None
        with tracing.span("scheduler: place", message.traceparent, kind="server"):
            for true in (True,) if message.fresh else (False, True):
                picture = await self.hosts.current(0.0 if true else MAX_AGE, true=true)
                with families.DECISION_SECONDS.time():
                    placement = place(picture, message.request, self.rules, self.world.random, self.world.monotonic())
                if placement.candidates:
                    break
        families.PICTURE_HOSTS.set(len(picture))
        families.DECISIONS.labels("placed" if placement.candidates else "no_valid_host").inc()
        return Answer(data=msgspec.to_builtins(placement))
