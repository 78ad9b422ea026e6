"""Commands to agents: sent, and sent again under the same key, until the result is here.

No message needs to be durable: the operation's row is, and the agent's journal
answers a repeated key with what it knows. What a lost message costs is time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from kilonova import tracing
from kilonova.agent.commands import encode_args
from kilonova.agent.driver import Secrets
from kilonova.bus import Bus
from kilonova.bus.messages import Command, ProgressReport, Result
from kilonova.conductor.hosts import Hosts
from kilonova.conductor.pace import PACE, Pace
from kilonova.engine.model import Aborted, Data, Failure, Fenced
from kilonova.errors import HostFailure, Invalid, Transient
from kilonova.world import World

log = structlog.get_logger()

OnProgress = Callable[[str, int], Awaitable[None]]


class _Waiting:
    __slots__ = ("host", "news", "on_progress", "operation_id", "result")

    def __init__(self, host: str, operation_id: int, on_progress: OnProgress | None) -> None:
        self.host = host
        self.operation_id = operation_id
        self.result: Result | None = None
        self.news = asyncio.Event()
        """Set when the result is here, or when it is time to ask again."""
        self.on_progress = on_progress


class Agents:
    """All commands under way from this process, `address` being where results come back to."""

    def __init__(self, bus: Bus, world: World, hosts: Hosts, address: str, pace: Pace = PACE) -> None:
        self.bus = bus
        self.world = world
        self.hosts = hosts
        self.address = address
        self.resend = pace.resend
        self._waiting: dict[str, _Waiting] = {}

    async def call(
        self,
        *,
        host: str,
        key: str,
        operation_id: int,
        server_uuid: str,
        verb: str,
        args: msgspec.Struct,
        secrets: Callable[[], Awaitable[Secrets | None]] | None = None,
        on_progress: OnProgress | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> Data:
        """Have the host's agent do `verb` once. Returns the result's data; `on_result` sees all of it first.

        Raises HostFailure (also when the host stops answering), Invalid, Transient, or Fenced
        when the agent has seen a newer operation on this server.
        """
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(host, operation_id, on_progress)
        raw = encode_args(args)
        try:
            tries = 0
            while True:
                command = Command(
                    key=key,
                    operation_id=operation_id,
                    server_uuid=server_uuid,
                    verb=verb,
                    args=raw,
                    reply_to=self.address,
                    secrets=await secrets() if secrets else None,
                    traceparent=tracing.traceparent(),
                )
                try:
                    await self.bus.send(f"agent.{host}", command)
                except Transient as error:
                    log.info("command not sent", key=key, host=host, reason=error.message)
                result = await self._wait(waiting, self.resend[min(tries, len(self.resend) - 1)])
                if result is not None:
                    if on_result is not None:
                        on_result(result)
                    return _unpack(result)
                if not await self.hosts.is_up(host):
                    raise HostFailure(f"Host '{host}' does not answer.")
                tries += 1
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]

    async def _wait(self, waiting: _Waiting, seconds: float) -> Result | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiting.news.wait()
        waiting.news.clear()
        return waiting.result

    def on_result(self, result: Result) -> None:
        waiting = self._waiting.get(result.key)
        # Whatever another host says of this command, it is not the one that does it.
        if waiting is not None and waiting.host == result.host:
            waiting.result = result
            waiting.news.set()

    def awaits(self, report: ProgressReport) -> bool:
        """Whether this host has been told to do this for this operation."""
        waiting = self._waiting.get(report.key)
        return waiting is not None and (waiting.host, waiting.operation_id) == (report.host, report.operation_id)

    async def on_progress(self, report: ProgressReport) -> None:
        waiting = self._waiting.get(report.key)
        if waiting is not None and waiting.on_progress is not None:
            await waiting.on_progress(report.stage, report.percent)

    def on_host_back(self, host: str) -> None:
        """The agent has just started: ask again at once instead of at the next round."""
        for waiting in self._waiting.values():
            if waiting.host == host:
                waiting.news.set()


def _unpack(result: Result) -> Data:
    if result.error is None:
        return result.data
    if result.error_kind == "superseded":
        raise Fenced
    if result.error_kind == "transient":
        raise Transient(result.error, details=result.details)
    if result.error_kind == "host":
        raise HostFailure(result.error, details=result.details)
    if result.error_kind == "invalid":
        raise Invalid(result.error, details=result.details)
    raise Aborted(Failure(result.error, kind="host", details=result.details))
