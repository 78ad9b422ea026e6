"""Planes of simulated hosts: they have at once what their plan names, and say so as real ones do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable

import msgspec

from kilonova.bus import Bus, Subscription
from kilonova.bus.messages import Answer, Message
from kilonova.network.messages import GREETING_PERIOD, ROLE, PlaneGreeting, PlanePlan, PlaneReport, plane_address
from kilonova.network.outline import Outline
from kilonova.world import World

REPORT_TURNS = 6
"""A report is repeated with every sixth greeting: one may be lost."""

_decode = msgspec.msgpack.Decoder(Outline).decode


class SimPlanes:
    """One plane for each of `hosts`."""

    def __init__(self, bus: Bus, world: World, hosts: Iterable[str]) -> None:
        self._bus = bus
        self._world = world
        self._hosts = list(hosts)
        self._incarnation = world.uuid()
        self._plans: dict[str, str] = {}
        self._reports: dict[str, PlaneReport] = {}
        self._listening: list[Subscription] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for host in self._hosts:
            self._listening.append(await self._bus.listen(plane_address(host), self._take, concurrency=1))
        self._task = asyncio.create_task(self._greet_for_ever(), name="simulated planes")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for each in self._listening:
            await each.close()

    async def _greet_for_ever(self) -> None:
        for turn in itertools.count():
            for host in self._hosts:
                plan = self._plans.get(host, "")
                await self._bus.send(ROLE, PlaneGreeting(host=host, incarnation=self._incarnation, plan=plan))
                if turn % REPORT_TURNS == 0 and host in self._reports:
                    await self._bus.send(ROLE, self._reports[host])
            await self._world.sleep(GREETING_PERIOD)

    async def _take(self, message: Message) -> Answer | None:
        if isinstance(message, PlanePlan):
            plan = _decode(message.content)
            self._plans[message.host] = message.digest
            report = self._reports[message.host] = PlaneReport(
                host=message.host,
                incarnation=self._incarnation,
                ports=plan.ports,
                routers=dict.fromkeys(plan.routers, "ACTIVE"),
                floatingips=dict.fromkeys(plan.floatingips, "ACTIVE"),
            )
            await self._bus.send(ROLE, report)
        return None
