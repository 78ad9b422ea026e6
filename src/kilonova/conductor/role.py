"""The conductor role: an engine, the hosts' reports, and the reconcilers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import structlog

from kilonova.bus import Subscription
from kilonova.bus.heartbeats import beat
from kilonova.bus.messages import (
    Answer,
    Heartbeat,
    Heartbeats,
    HostReport,
    Message,
    NetworkEvent,
    PowerReport,
    ProgressReport,
    ReportWanted,
    Result,
    Wake,
)
from kilonova.conductor.agents import Agents
from kilonova.conductor.hosts import Hosts
from kilonova.conductor.pace import PACE, Pace
from kilonova.engine import store
from kilonova.engine.engine import LEASE, SWEEP, Engine
from kilonova.engine.model import Workflow
from kilonova.engine.run import Probe, no_probe
from kilonova.errors import KilonovaError, Transient
from kilonova.reconcile.network_info import NetworkInfo
from kilonova.reconcile.power_state import PowerStates
from kilonova.reconcile.quota_usage import QuotaUsage
from kilonova.reconcile.reclaim import Reclaim
from kilonova.reconcile.running_deleted import RunningDeleted
from kilonova.reconcile.stray_ports import StrayPorts
from kilonova.reconcile.tombstones import Tombstones
from kilonova.runtime import Runtime
from kilonova.workflows import ALL
from kilonova.workflows.env import Env

log = structlog.get_logger()

DRAIN = 5.0
"""Seconds that operations get at the end to reach a resting point."""

PLUGGING = ("vif-plugged", "vif-unplugged")
"""Events after which Networking tells of a port what it told before, but for its status."""


class Conductor:
    """One per process; any number of processes."""

    def __init__(
        self,
        rt: Runtime,
        *,
        concurrency: int = 200,
        lease: float = LEASE,
        sweep: float = SWEEP,
        drain: float = DRAIN,
        probe: Probe = no_probe,
        pace: Pace = PACE,
        workflows: Mapping[str, Workflow[Env]] = ALL,
    ) -> None:
        self.rt = rt
        self.drain = drain
        self.id = rt.world.uuid()
        self.address = f"conductor.{self.id}"
        self.hosts = Hosts(rt.db, rt.world, rt.settings, pace, rt.bus.missed, self._want_report)
        self.agents = Agents(rt.bus, rt.world, self.hosts, self.address, pace)
        self.env = Env(rt=rt, agents=self.agents, hosts=self.hosts, pace=pace)
        self.engine: Engine[Env] = Engine(
            env=self.env,
            db=rt.db,
            world=rt.world,
            workflows=workflows,
            owner=self.id,
            concurrency=concurrency,
            lease=lease,
            sweep=sweep,
            probe=probe,
            retry=pace.retry,
        )
        self.power_states = PowerStates(rt, RunningDeleted(rt, self.agents))
        self.tombstones = Tombstones(rt, self.hosts, self.agents, pace)
        self.network_info = NetworkInfo(rt, pace)
        self.stray_ports = StrayPorts(rt, pace)
        self.quota_usage = QuotaUsage(rt, pace)
        self._subscriptions: list[Subscription] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, alone: bool = False) -> None:
        """`alone`: this is the only conductor on its database (see `Engine.start`)."""
        await self.hosts.start()
        self._subscriptions = [
            await self.rt.bus.listen("conductor", self._on_message),
            await self.rt.bus.listen(self.address, self._on_message),
        ]
        await self.engine.start(alone=alone)
        heartbeat = Heartbeat(host=self.rt.settings.host, binary="nova-conductor", incarnation=self.id)
        beating = beat(self.rt.bus, self.rt.world, heartbeat, self.rt.settings.report_interval)
        power_states = self.power_states.loop(self._wake)
        loops = (self.tombstones.loop(), self.quota_usage.loop(), power_states, beating)
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        if self.rt.settings.reclaim_instance_interval > 0:
            self._tasks.append(asyncio.create_task(Reclaim(self.rt).loop()))
        if self.rt.network is not None:
            self._tasks.append(asyncio.create_task(self.stray_ports.loop()))
            self._tasks.append(asyncio.create_task(self.network_info.loop()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.network_info.stop()
        await self.engine.stop(drain=self.drain)
        for subscription in self._subscriptions:
            await subscription.close()
        await self.hosts.stop()

    async def _on_message(self, message: Message) -> Answer | None:
        match message:
            case Wake():
                self.engine.wake(message.operation_id)
            case Result():
                self.agents.on_result(message)
            case ProgressReport():
                await self._on_progress(message)
            case Heartbeat():
                self.hosts.on_heartbeat(message)
            case Heartbeats():
                self.hosts.on_heartbeats(message)
            case HostReport():
                self._wake(await self.hosts.on_report(message))
                self.agents.on_host_back(message.host)
                self.tombstones.poke()
                if message.states is not None:
                    report = PowerReport(
                        host=message.host, incarnation=message.incarnation, states=message.states, complete=True
                    )
                    self._wake(await self.power_states.compare([report]))
            case PowerReport():
                self._wake(await self.power_states.on_report(message))
            case NetworkEvent():
                self.env.plugging.on_event(message.server_uuid)
                if message.name not in PLUGGING:
                    self.network_info.poke(message.server_uuid)
            case _:
                log.warning("message not for a conductor", kind=type(message).__name__)
        return None

    def _wake(self, operation_ids: Sequence[int]) -> None:
        for operation_id in operation_ids:
            self.engine.wake(operation_id)

    async def _want_report(self, host: str) -> None:
        with contextlib.suppress(KilonovaError):
            await self.rt.bus.send(f"agent.{host}", ReportWanted())

    async def _on_progress(self, report: ProgressReport) -> None:
        if not self.agents.awaits(report):
            return
        with contextlib.suppress(Transient):
            await store.save_progress(self.rt.db, report.operation_id, report.stage, report.percent)
