"""The role `network` on the bus: plans go out, greetings and reports come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kilonova.bus import Bus, Subscription
from kilonova.bus.messages import Answer, Message
from kilonova.network.messages import ROLE, PlaneGreeting, PlanePlan, PlaneReport, plane_address
from kilonova.network.rest import NeutronRest
from kilonova.network.role import NetworkRole, PlaneHost
from kilonova.network.statuses import PlaneState
from kilonova.network.upkeep import Documents
from kilonova.world import World

Compute = Callable[[Documents, Mapping[str, PlaneHost]], Mapping[str, msgspec.Struct]]

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class NetworkService:
    """A NetworkRole whose planes are reached over the bus."""

    def __init__(
        self, rest: NeutronRest, bus: Bus, world: World, *, compute: Compute, hints_address: str, full_read: float
    ) -> None:
        self._bus = bus
        self._digests: dict[str, str] = {}
        self._listening: Subscription | None = None
        self.role = NetworkRole(
            rest, world, compute=compute, send=self._send, hints_address=hints_address, full_read=full_read
        )

    async def start(self) -> None:
        """Raises OSError when another role has the hints' address."""
        self._listening = await self._bus.listen(ROLE, self._take)
        await self.role.start()

    async def stop(self) -> None:
        if self._listening is not None:
            await self._listening.close()
        await self.role.stop()

    async def _send(self, host: str, plan: Any) -> None:
        content = _encode(plan)
        digest = hashlib.sha256(content).hexdigest()[:32]
        self._digests[host] = digest
        await self._bus.send(plane_address(host), PlanePlan(host=host, digest=digest, content=msgspec.Raw(content)))

    async def _take(self, message: Message) -> Answer | None:
        match message:
            case PlaneGreeting():
                plane = PlaneHost(host=message.host, incarnation=message.incarnation, facts=message.tunnel_ip)
                self.role.greeted(plane, has=message.plan == self._digests.get(message.host, ""))
            case PlaneReport():
                state = PlaneState(
                    ports=frozenset(message.ports), routers=message.routers, floatingips=message.floatingips
                )
                self.role.reported(message.host, message.incarnation, state)
        return None
