"""The compute role: takes one host's commands, runs them over its driver, reports.

A command is journalled, then acknowledged, then run, and its result is stored
before it is sent. Commands of one server run one after the other; one that is
newer (a later operation, or the undo of what runs) first stops the older.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import traceback
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from kilonova import tracing
from kilonova.agent.allocation import Allocation
from kilonova.agent.commands import VERBS, Context, NoImages, decode_args
from kilonova.agent.condition import condition
from kilonova.agent.driver import ConsoleKind, Driver, ImageSource, Secrets
from kilonova.agent.journal import Journal, Key, State
from kilonova.agent.marks import ServerMarks, no_journal
from kilonova.agent.precache import Precache
from kilonova.agent.provider_config import NOTHING_MORE, Additions
from kilonova.agent.report import Periodic, Pulse, Reporter, Ticker
from kilonova.agent.traced import traced
from kilonova.bus import Bus, Subscription
from kilonova.bus.messages import (
    Answer,
    CacheImages,
    Command,
    HostQuestion,
    Message,
    ProgressReport,
    ReportWanted,
    Result,
    ServerQuestion,
)
from kilonova.errors import Conflict, HostFailure, Invalid, KilonovaError, Transient
from kilonova.metrics import families
from kilonova.world import World

log = structlog.get_logger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROGRESS = 0.1
"""Seconds between two progress reports of one command at first, each later one twice as long after the one before,
up to a second; quick commands send none."""
_ASKED_AGAIN = 90.0
"""Seconds for which a command waits to be sent again with its secrets: six rounds of a conductor that wants it. Then
its server is free for others' commands and for reports; should it be asked for after all, it is taken up anew."""


class _Work:
    """One command under way. `secrets` is None while a command that needs them waits for its second sending."""

    __slots__ = (
        "command",
        "ending",
        "key",
        "patience",
        "progress",
        "secrets",
        "started",
        "stopped_by",
        "task",
        "timer",
        "waiting",
    )

    def __init__(self, command: Command, secrets: Secrets | None) -> None:
        self.command = command
        self.key = Key.parse(command.key)
        self.secrets = secrets
        self.task: asyncio.Task[None] | None = None
        self.started = False
        """A task that is cancelled before its first step never runs, and so would never end its work."""
        self.ending = False
        self.stopped_by: str | None = None
        self.progress = ("", 0)
        self.patience = _PROGRESS
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: asyncio.TimerHandle | None = None

    def yields_to(self, other: _Work) -> bool:
        """Whether `other` makes this one pointless."""
        if other.key.operation != self.key.operation:
            return other.key.operation > self.key.operation
        return other.key.undo and not self.key.undo


class Agent:
    """One host's agent. The journal and the bus are started by their owner, the driver by the agent."""

    def __init__(
        self,
        *,
        host: str,
        driver: Driver,
        bus: Bus,
        journal: Journal,
        world: World,
        images: ImageSource | None = None,
        report_interval: float = 10.0,
        sync_power_state_interval: float = 600.0,
        max_concurrent_builds: int = 10,
        image_cache_interval: float = 2400.0,
        image_cache_age: float = 86400.0,
        drain_timeout: float = 5.0,
        incarnation: str | None = None,
        ticker: Ticker | None = None,
        boot_id: str | None = None,
        allocation: Allocation | None = None,
        additions: Additions = NOTHING_MORE,
        pulse: Pulse | None = None,
        console_pages: Mapping[str, str] | None = None,
    ) -> None:
        """Intervals and time-outs in seconds; a bound of 0 builds means none.

        `allocation`: what the host's own configuration says; None leaves it to the conductors'. `additions`: what
        the host has and its driver does not know. `console_pages`: by kind, where users see this host's consoles.
        Every `image_cache_interval` (0 or less: never) images that nothing has used for `image_cache_age` go.
        """
        self.host = host
        self.driver = driver
        self.incarnation = incarnation or world.uuid()
        self._bus = bus
        self._journal = journal
        self._world = world
        self._images: ImageSource = images or NoImages()
        self._precache = Precache(host, driver, self._images)
        self._builds = asyncio.Semaphore(max_concurrent_builds) if max_concurrent_builds > 0 else None
        self._drain_timeout = drain_timeout
        self._ticker = ticker or Ticker(world)
        self._image_cache_interval = image_cache_interval
        self._image_cache_age = image_cache_age
        self._evicting: Periodic | None = None
        self._console_pages = console_pages or {}
        self._draining = False
        self._sending: set[asyncio.Task[None]] = set()
        self._works: dict[str, _Work] = {}
        self._lanes: dict[str, list[_Work]] = {}
        self._subscription: Subscription | None = None
        self.reporter = Reporter(
            host=host,
            incarnation=self.incarnation,
            boot_id=boot_id or read_boot_id(),
            driver=driver,
            bus=bus,
            world=world,
            ticker=self._ticker,
            busy=self._lanes.__contains__,
            report_interval=report_interval,
            sync_power_state_interval=sync_power_state_interval,
            allocation=allocation,
            additions=additions,
            pulse=pulse,
        )

    async def start(self) -> None:
        """Adopt the host, take up what the journal left open, listen and report. Raises what the driver raises."""
        self._draining = False
        await self.driver.start()
        for entry in await self._journal.unfinished(self.host):
            self._enqueue(_Work(entry.command, None if entry.had_secrets else Secrets()))
        # Listen first: conductors take the report as the sign that now they may ask again.
        self._subscription = await self._bus.listen(f"agent.{self.host}", self._handle)
        await self.reporter.start()
        if self._image_cache_interval > 0:
            interval = self._image_cache_interval
            self._evicting = self._ticker.every(interval, self._evict_images, first=interval)

    async def stop(self) -> None:
        """Take nothing more, give what runs `drain_timeout` seconds, leave the rest to the journal."""
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None
        await self.reporter.stop()
        await self._precache.stop()
        if self._evicting is not None:
            self._evicting.stop()
        self._draining = True
        tasks = [work.task for work in self._works.values() if work.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._drain_timeout)
        for work in list(self._works.values()):
            if work.waiting is not None:
                work.waiting.cancel()
            if work.task is not None:
                work.task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._sending:
            await asyncio.wait(self._sending)
        self._lanes.clear()
        families.COMMANDS_OPEN.dec(len(self._works))
        self._works.clear()
        await self.driver.close()

    async def _evict_images(self) -> None:
        evicted = await self.driver.ensure_images_evicted(unused_for=self._image_cache_age, free_bytes=0)
        if evicted:
            log.info("agent.images_evicted", host=self.host, images=evicted)

    async def _handle(self, message: Message) -> Answer | None:
        if isinstance(message, Command):
            await self._take(message)
            return None
        if isinstance(message, CacheImages):
            self._precache.fetch(message)
            return None
        if isinstance(message, ReportWanted):
            await self.reporter.report()
            return None
        if isinstance(message, ServerQuestion):
            return await self._answer(message)
        if isinstance(message, HostQuestion):
            return await condition(self.driver)
        log.warning("agent.unexpected_message", host=self.host, message=type(message).__name__)
        return None

    async def _take(self, command: Command) -> None:
        """Journal a command; what follows from what the journal knows of it."""
        try:
            recorded = await self._journal.record(self.host, command, self._epoch_seconds())
        except sqlite3.Error as error:
            log.error("agent.journal_failed", host=self.host, key=command.key, error=str(error))
            await self._send(command.reply_to, self._failed(command, no_journal(self.host, error), "host"))
            return
        if recorded.state is State.DONE and recorded.result is not None:
            await self._send(command.reply_to, recorded.result)
        elif recorded.state is State.OLD:
            await self._send(command.reply_to, self._failed(command, "Newer work took this one's place.", "superseded"))
        elif recorded.state is State.FOREIGN:
            log.error("agent.number_used_twice", host=self.host, key=command.key, server=command.server_uuid)
            message = (
                f"Host '{self.host}' knows command {command.key} as another server's: the database was restored from "
                "a backup without 'nova-manage db restored'."
            )
            await self._send(command.reply_to, self._failed(command, message, "host"))
        elif (work := self._works.get(command.key)) is not None:
            work.command = msgspec.structs.replace(work.command, reply_to=command.reply_to)
            if work.secrets is None:
                work.secrets = command.secrets or Secrets()
                self._run(work)
            else:
                self._send_progress(work)
        else:
            self._enqueue(_Work(command, command.secrets or Secrets()))

    def _enqueue(self, work: _Work) -> None:
        self._works[work.command.key] = work
        families.COMMANDS_OPEN.inc()
        lane = self._lanes.setdefault(work.command.server_uuid, [])
        for other in lane:
            if other.yields_to(work) and not other.ending and other.stopped_by is None:
                other.stopped_by = work.command.key
                if other.task is None:
                    self._run(other)
                elif other.started:
                    other.task.cancel()
            elif other.secrets is None and work.command.secrets and other.key.operation == work.key.operation:
                # Another try: the command that waits will not be sent again, and has the same secrets.
                other.secrets = work.secrets
                self._run(other)
        lane.append(work)
        if work.secrets is not None:
            self._run(work)
        else:
            work.waiting = asyncio.get_running_loop().call_later(_ASKED_AGAIN, self._not_asked_again, work)

    def _not_asked_again(self, work: _Work) -> None:
        if work.task is None:
            log.info("agent.command_not_asked_again", host=self.host, key=work.command.key)
            self._leave(work)

    def _run(self, work: _Work) -> None:
        lane = self._lanes[work.command.server_uuid]
        before = [other.task for other in lane if other is not work and other.task is not None]
        work.task = asyncio.get_running_loop().create_task(self._work(work, before))

    async def _work(self, work: _Work, before: list[asyncio.Task[None]]) -> None:
        command = work.command
        result: Result | None = None
        work.started = True
        try:
            if before:
                await asyncio.wait(before)
            if work.stopped_by is None:
                if self._draining:
                    self._leave(work)
                    return
                result = await self._execute(work)
        except asyncio.CancelledError:
            if work.stopped_by is None:
                self._leave(work)
                return
        work.ending = True
        if result is None:
            result = self._failed(command, f"Stopped for the newer command {work.stopped_by}.", "superseded")
        await self._end(work, result)

    async def _execute(self, work: _Work) -> Result:
        command = work.command
        started = self._world.monotonic()
        name = f"host: {command.verb}"
        with tracing.span(name, command.traceparent, {"host.name": self.host}, kind="server") as span:
            result = await self._perform(work)
            if result.error is not None:
                span.fail(result.error)
        return msgspec.structs.replace(result, seconds=round(self._world.monotonic() - started, 6))

    async def _perform(self, work: _Work) -> Result:
        command = work.command
        try:
            verb, args = decode_args(command.verb, command.args)
            context = Context(
                driver=traced(self.driver, self.host),
                images=self._images,
                secrets=work.secrets or Secrets(),
                progress=lambda stage, percent: self._progress(work, stage, percent),
                marks=ServerMarks(self._journal, self.host, command.server_uuid),
            )
            if verb.builds and self._builds is not None:
                async with self._builds:
                    data = await verb.run(context, args)
            else:
                data = await verb.run(context, args)
            return Result(key=command.key, operation_id=command.operation_id, host=self.host, data=data)
        except KilonovaError as error:
            kind = next((name for known, name in _KINDS if isinstance(error, known)), "unknown")
            log.info("agent.command_failed", host=self.host, key=command.key, verb=command.verb, error=error.message)
            return self._failed(command, error.message, kind, error.details)
        except Exception as error:
            log.exception("agent.command_failed", host=self.host, key=command.key, verb=command.verb)
            message = "The host failed in an unexpected way."
            return self._failed(command, message, "unknown", "".join(traceback.format_exception(error)))

    async def _end(self, work: _Work, result: Result) -> None:
        """Store the result, however long the disk is full; then send it to whoever asked last."""
        while True:
            try:
                await self._journal.finish(self.host, result, self._epoch_seconds())
                break
            except sqlite3.Error as error:
                log.error("agent.journal_failed", host=self.host, key=result.key, error=str(error))
                await self._world.sleep(1.0)
        verb = work.command.verb
        families.command(verb if verb in VERBS else "(other)", result.error_kind or "done", result.seconds)
        self._leave(work)
        if work.command.server_uuid not in self._lanes:
            self.reporter.settled(work.command.server_uuid, result.data.get("power_state"))
        await self._send(work.command.reply_to, result)

    def _leave(self, work: _Work) -> None:
        for timer in (work.timer, work.waiting):
            if timer is not None:
                timer.cancel()
        if self._works.pop(work.command.key, None) is not None:
            families.COMMANDS_OPEN.dec()
        lane = self._lanes.get(work.command.server_uuid, [])
        if work in lane:
            lane.remove(work)
        if not lane:
            self._lanes.pop(work.command.server_uuid, None)

    async def _progress(self, work: _Work, stage: str, percent: int) -> None:
        work.progress = (stage, percent)
        if work.timer is None:
            work.timer = asyncio.get_running_loop().call_later(work.patience, self._progress_due, work)

    def _progress_due(self, work: _Work) -> None:
        work.timer = None
        work.patience = min(2 * work.patience, 1.0)
        self._send_progress(work)

    def _send_progress(self, work: _Work) -> None:
        stage, percent = work.progress
        if stage and not work.ending:
            command = work.command
            report = ProgressReport(
                key=command.key, operation_id=command.operation_id, host=self.host, stage=stage, percent=percent
            )
            task = asyncio.get_running_loop().create_task(self._send(command.reply_to, report))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _answer(self, question: ServerQuestion) -> Answer:
        uuid = question.server_uuid
        if question.what == "console_output":
            lines = question.args.get("lines")
            output = await self.driver.console_output(uuid, lines if isinstance(lines, int) else None)
            return Answer(data={"output": output})
        if question.what == "diagnostics":
            return Answer(data=await self.driver.diagnostics(uuid))
        if question.what == "power_state":
            return Answer(data={"power_state": int(await self.driver.power_state(uuid))})
        if question.what == "console":
            return await self._console(uuid, question.args)
        raise Invalid(f"'{question.what}' is no question; known are console, console_output, diagnostics, power_state.")

    async def _console(self, uuid: str, args: dict[str, object]) -> Answer:
        """`refused` says which kind of refusal the error is: `off` or `none`."""
        kind: ConsoleKind = "serial" if args.get("kind") == "serial" else "vnc"
        try:
            found = await self.driver.console(uuid, kind, ticket=args.get("open") is True)
        except (Conflict, Invalid) as error:
            return Answer(data={"refused": "off" if isinstance(error, Conflict) else "none"}, error=error.message)
        page = self._console_pages.get(kind)
        return Answer(data={"host": found.host, "port": found.port, "ticket": found.ticket, "page": page})

    def _failed(self, command: Command, message: str, kind: str, details: str | None = None) -> Result:
        return Result(
            key=command.key,
            operation_id=command.operation_id,
            host=self.host,
            error=message,
            error_kind=kind,
            details=details,
        )

    async def _send(self, address: str, message: Message) -> None:
        """What cannot be sent is asked for again by whoever needs it."""
        try:
            await self._bus.send(address, message)
        except KilonovaError as error:
            log.warning("agent.send_failed", host=self.host, message=type(message).__name__, error=error.message)

    def _epoch_seconds(self) -> float:
        return self._world.now().replace(tzinfo=dt.UTC).timestamp()


_KINDS: tuple[tuple[type[KilonovaError], str], ...] = (
    (HostFailure, "host"),
    (Invalid, "invalid"),
    (Transient, "transient"),
)


def read_boot_id() -> str:
    """The kernel's id of this boot of the machine."""
    return _BOOT_ID.read_text().strip()
