"""The scheduler role: keeps the picture of the hosts and answers questions about it."""

from __future__ import annotations

import asyncio

import msgspec
import sqlalchemy as sa

from kilonova.bus import Bus, Subscription
from kilonova.bus.heartbeats import beat
from kilonova.bus.messages import Answer, Heartbeat, Message, SchedulingQuestion
from kilonova.db.engine import Database, Tx
from kilonova.db.tables import compute_nodes, services
from kilonova.db.types import database_seconds
from kilonova.scheduler.pick import place
from kilonova.scheduler.picture import Node, Picture
from kilonova.settings import ComputeSettings
from kilonova.world import World

MAX_AGE = 2.0
"""Seconds a picture is used; what was given away meanwhile is deducted, and claims are exact anyway."""


class Scheduler:
    def __init__(self, db: Database, bus: Bus, world: World, settings: ComputeSettings) -> None:
        self.db = db
        self.bus = bus
        self.world = world
        self.settings = settings
        self._picture: Picture | None = None
        self._taken_at = 0.0
        self._subscription: Subscription | None = None
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.listen("scheduler", self._on_message)
        heartbeat = Heartbeat(host=self.settings.host, binary="nova-scheduler", incarnation=self.world.uuid())
        self._beating = asyncio.create_task(beat(self.bus, self.world, heartbeat, self.settings.report_interval))

    async def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.close()

    async def _on_message(self, message: Message) -> Answer | None:
        if not isinstance(message, SchedulingQuestion):
            return None
        picture = await self._current(message.fresh)
        placement = place(picture, message.request, self.world.random)
        if not placement.candidates and not message.fresh:
            placement = place(await self._current(True), message.request, self.world.random)
        return Answer(data=msgspec.to_builtins(placement))

    async def _current(self, fresh: bool) -> Picture:
        now = self.world.monotonic()
        if fresh or self._picture is None or now - self._taken_at > MAX_AGE:
            self._picture = Picture(await self.db.read(self._nodes))
            self._taken_at = now
        return self._picture

    async def _nodes(self, tx: Tx) -> list[Node]:
        n, s = compute_nodes.c, services.c
        up = sa.and_(sa.not_(s.forced_down), s.last_seen > database_seconds() - self.settings.service_down_time)
        rows = await tx.execute(
            sa.select(
                n.id,
                n.host,
                n.hypervisor_hostname,
                sa.func.coalesce(s.availability_zone, self.settings.default_availability_zone).label("zone"),
                s.disabled,
                up.label("up"),
                (n.vcpus_max - n.vcpus_used).label("vcpus"),
                (n.memory_mb_max - n.memory_mb_used).label("memory_mb"),
                (n.local_gb_max - n.local_gb_used).label("disk_gb"),
            ).join_from(compute_nodes, services, s.id == n.service_id)
        )
        return [
            Node(
                id=row.id,
                host=row.host,
                node=row.hypervisor_hostname,
                availability_zone=row.zone,
                enabled=not row.disabled,
                up=bool(row.up),
                vcpus_free=row.vcpus,
                memory_mb_free=row.memory_mb,
                disk_gb_free=row.disk_gb,
            )
            for row in rows
        ]
