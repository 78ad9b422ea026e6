"""The role consoleauth: tells proxies what a token opens and which sessions may go on; drops old tokens."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from kilonova.bus import Subscription
from kilonova.bus.heartbeats import beat
from kilonova.bus.messages import Answer, ConsumeConsoleToken, Heartbeat, LiveConsoles, Message, ServerQuestion
from kilonova.console import tokens
from kilonova.console.settings import CONSOLEAUTH, SERIAL
from kilonova.console.tokens import Refusal
from kilonova.db import console_tokens
from kilonova.db.engine import Tx
from kilonova.errors import KilonovaError
from kilonova.runtime import Runtime

log = structlog.get_logger()

_SWEEP = 300.0
_KEEP = 3600.0
"""Seconds for which an expired token's row stays, so that whoever comes too late is told so."""
_ASK_HOST = 8.0
"""Seconds that the host gets to say where the console is."""


class ConsoleAuth:
    """Any number of them share one database."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self._subscription: Subscription | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._subscription = await self.rt.bus.listen(CONSOLEAUTH, self._on_message)
        heartbeat = Heartbeat(host=self.rt.settings.host, binary="nova-consoleauth", incarnation=self.rt.world.uuid())
        self._tasks = [
            asyncio.create_task(self._sweep()),
            asyncio.create_task(beat(self.rt.bus, self.rt.world, heartbeat, self.rt.settings.report_interval)),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None

    async def _on_message(self, message: Message) -> Answer | None:
        match message:
            case ConsumeConsoleToken():
                return await self._consume(message)
            case LiveConsoles():
                return await self._hold(message)
            case _:
                log.warning("message not for consoleauth", kind=type(message).__name__)
                return None

    async def _consume(self, question: ConsumeConsoleToken) -> Answer:
        rt = self.rt
        found = await rt.db.write(
            lambda tx: tokens.consume(tx, rt.world, rt.settings.console, question.token, question.session)
        )
        if isinstance(found, Refusal):
            log.info("console.refused", reason=found.value)
            return Answer(data={"refused": found.value})
        # Asked anew: the port that the token was issued for may be another guest's by now.
        kind = "serial" if found.console_type == SERIAL else "vnc"
        asked = ServerQuestion(server_uuid=found.server_uuid, what="console", args={"kind": kind, "open": True})
        try:
            answer = await rt.bus.ask(f"agent.{found.host}", asked, _ASK_HOST)
        except KilonovaError as error:
            answer = Answer(error=error.message)
        if answer.error is not None:
            log.info("console.unavailable", server=found.server_uuid, error=answer.error)
            return Answer(data={"refused": "unavailable", "message": answer.error})
        log.info("console.opened", server=found.server_uuid, kind=kind, connection=found.connection)
        return Answer(
            data={
                "connection": found.connection,
                "server": found.server_uuid,
                "kind": kind,
                "seconds": found.seconds,
                **answer.data,
            }
        )

    async def _hold(self, question: LiveConsoles) -> Answer:
        asked, reconnect = question.connections, self.rt.settings.console.reconnect

        async def hold(tx: Tx) -> dict[str, str]:
            going_on = await console_tokens.hold(tx, asked, reconnect=reconnect)
            ended = [each for each in asked if each not in going_on]
            known = await console_tokens.connections(tx, ended) if ended else set()
            return {each: "revoked" if each in known else "replaced" for each in ended}

        return Answer(data={"ended": await self.rt.db.write(hold)})

    async def _sweep(self) -> None:
        while True:
            with contextlib.suppress(KilonovaError):
                await self.rt.db.write(lambda tx: console_tokens.sweep(tx, keep=_KEEP))
            await self.rt.world.sleep(_SWEEP)
