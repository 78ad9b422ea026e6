"""The role cert: signs for the API what it asks, and tells the authority's own certificate."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from kilonova.bus import Bus, Subscription
from kilonova.bus.heartbeats import beat
from kilonova.bus.messages import Answer, AuthorityQuestion, Heartbeat, Message, SignCertificate
from kilonova.cert.authority import Authority
from kilonova.errors import Invalid
from kilonova.world import World

log = structlog.get_logger()

ADDRESS: Final = "cert"


class Cert:
    """Any number of them may share one folder; it has no database."""

    def __init__(self, bus: Bus, world: World, authority: Authority, *, host: str, report_interval: float) -> None:
        self._bus = bus
        self._world = world
        self._authority = authority
        self._host = host
        self._report_interval = report_interval
        self._subscription: Subscription | None = None
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises Conflict for a damaged folder."""
        await asyncio.to_thread(self._authority.ensure, self._world.now())
        self._subscription = await self._bus.listen(ADDRESS, self._on_message, concurrency=4)
        heartbeat = Heartbeat(host=self._host, binary="nova-cert", incarnation=self._world.uuid())
        self._beating = asyncio.create_task(beat(self._bus, self._world, heartbeat, self._report_interval))

    async def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None

    async def _on_message(self, message: Message) -> Answer | None:
        match message:
            case SignCertificate():
                return await self._sign(message)
            case AuthorityQuestion():
                return Answer(data={"certificate": await asyncio.to_thread(self._authority.certificate)})
            case _:
                log.warning("message not for cert", kind=type(message).__name__)
                return None

    async def _sign(self, asked: SignCertificate) -> Answer:
        try:
            made = await asyncio.to_thread(
                self._authority.sign,
                asked.request,
                user_id=asked.user_id,
                project_id=asked.project_id,
                now=self._world.now(),
            )
        except Invalid as error:
            return Answer(error=error.message)
        log.info("certificate.signed", user=asked.user_id, project=asked.project_id)
        return Answer(data={"certificate": made})
