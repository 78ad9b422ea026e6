"""Keeps a cloud's parts alive: starts each, asks whether it answers, starts it again with growing pauses."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import httpx
import msgspec

from kilonova.allinone import processes
from kilonova.allinone.errors import CloudError
from kilonova.allinone.files import tail
from kilonova.allinone.services import ServiceSpec

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a part that ended is started again: doubled each time."""

STEADY = 60.0
"""A part that has lived so many seconds starts over with the shortest pause."""

PROBE_PERIOD, PROBE_TIMEOUT, PROBES_MISSED = 5.0, 10.0, 3
"""A part that misses so many probes in a row is taken for hung and is started again."""

START_TIME = 120.0
"""Seconds within which a part must answer for the first time (a loaded machine migrates a database in 20)."""

KEEP_LOG = 16 << 20
"""Bytes of a part's log; a larger one is set aside when the part starts."""

State = Literal["starting", "ready", "waiting", "stopped"]


class PartStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a cloud as `kilonova status` shows it."""

    name: str
    state: State
    pid: int | None = None
    restarts: int = 0
    since: float = 0.0
    """Seconds after boot at which the state was entered."""
    detail: str = ""


class Part(Protocol):
    """Something that the cloud keeps alive."""

    async def start(self) -> None:
        """Return when it answers for the first time; raise CloudError with its reason when it cannot."""

    async def stop(self) -> None: ...

    def status(self) -> PartStatus: ...


class Child:
    """Keystone or Glance: a child process that dies with us."""

    def __init__(self, spec: ServiceSpec, *, run_dir: Path, log_dir: Path) -> None:
        self.spec = spec
        self.log = log_dir / f"{spec.name}.log"
        self.record = run_dir / f"{spec.name}.json"
        self.restarts = 0
        self._state: State = "stopped"
        self._since = time.monotonic()
        self._detail = ""
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0
        self._watcher: asyncio.Task[None] | None = None
        self._client = httpx.AsyncClient(timeout=PROBE_TIMEOUT, trust_env=False)

    def status(self) -> PartStatus:
        """As of the last probe."""
        pid = self._process.pid if self._process is not None and self._process.returncode is None else None
        return PartStatus(
            name=self.spec.name,
            state=self._state,
            pid=pid,
            restarts=self.restarts,
            since=self._since,
            detail=self._detail,
        )

    async def start(self) -> None:
        """Start it and wait until it answers. Raises CloudError with the end of its log when it does not."""
        await asyncio.to_thread(self.end_leftover)
        process = await self._spawn()
        if not await self._wait_until_it_answers(process):
            reason = self._why(process)
            await self._end(process)
            await self._client.aclose()
            raise CloudError(f"{self.spec.name} does not start: {reason}", remedy=f"its whole log is {self.log}")
        self._watcher = asyncio.create_task(self._watch(process), name=f"watch {self.spec.name}")

    async def stop(self) -> None:
        """End it. Nothing restarts it afterwards."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        if self._process is not None:
            await self._end(self._process)
        await self._client.aclose()
        self._enter("stopped")

    def end_leftover(self) -> None:
        """End what an earlier run of this cloud left behind (it died before it asked to die with its parent)."""
        leftover = processes.recall(self.record)
        if leftover is not None:
            processes.end(leftover, grace=2.0)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._enter("starting")
        if self.log.exists() and self.log.stat().st_size > KEEP_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as stream:
            self._log_start = stream.tell()
            process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                env=_environment(),
                cwd="/",
                # A Ctrl-C at the terminal is ours to answer: the child ends after the roles that call it.
                start_new_session=True,
            )
        self._process = process
        identity = processes.identify(process.pid)
        if identity is not None:
            processes.remember(self.record, identity)
        with suppress(BrokenPipeError, ConnectionResetError):  # it ended at once; its log says why
            assert process.stdin is not None
            process.stdin.write(json.dumps({**self.spec.stdin, "parent": os.getpid()}).encode())
            await process.stdin.drain()
            process.stdin.close()
        return process

    async def _wait_until_it_answers(self, process: asyncio.subprocess.Process) -> bool:
        deadline = time.monotonic() + START_TIME
        while process.returncode is None and time.monotonic() < deadline:
            if await self._answers():
                self._enter("ready")
                return True
            await asyncio.sleep(0.05)
        return False

    async def _answers(self) -> bool:
        try:
            return (await self._client.get(self.spec.health_url)).status_code < 500
        except httpx.HTTPError:
            return False

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            ended = await self._until_dead(process)
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            self._enter("waiting", f"{ended}; starting again in {pause:.1f} s")
            await self._end(process)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            self.restarts += 1
            process = await self._spawn()
            await self._wait_until_it_answers(process)

    async def _until_dead(self, process: asyncio.subprocess.Process) -> str:
        """Why it needs a restart."""
        if process.returncode is None and self._state != "ready":
            return f"did not answer within {START_TIME:.0f} s"
        missed = 0
        end = asyncio.ensure_future(process.wait())
        try:
            while missed < PROBES_MISSED:
                await asyncio.wait({end}, timeout=PROBE_PERIOD)
                if process.returncode is not None:
                    return self._why(process)
                missed = 0 if await self._answers() else missed + 1
        finally:
            end.cancel()
        return f"did not answer {missed} probes in a row"

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    def _why(self, process: asyncio.subprocess.Process) -> str:
        if process.returncode is None:
            return f"no answer at {self.spec.health_url} within {START_TIME:.0f} s"
        last = tail(self.log, 3, start=self._log_start) if process.returncode > 0 else ""
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
        return f"ended with {how}" + (f": {last}" if last else "")

    def _enter(self, state: State, detail: str = "") -> None:
        self._state, self._detail, self._since = state, detail, time.monotonic()


class Keeper:
    """A part that lives outside of our process tree (libvirtd): looked for every few seconds, started when gone."""

    def __init__(
        self, name: str, *, ensure: Callable[[], Awaitable[None]], find: Callable[[], int | None], period: float = 2.0
    ) -> None:
        self.name = name
        self.restarts = 0
        self._ensure = ensure
        self._find = find
        self._period = period
        self._state: State = "stopped"
        self._since = time.monotonic()
        self._detail = ""
        self._watcher: asyncio.Task[None] | None = None

    def status(self) -> PartStatus:
        """As of the last look."""
        return PartStatus(
            name=self.name,
            state=self._state,
            pid=self._find(),
            restarts=self.restarts,
            since=self._since,
            detail=self._detail,
        )

    async def start(self) -> None:
        """Start it, or find it running. Raises what `ensure` raises."""
        self._enter("starting")
        await self._ensure()
        self._enter("ready")
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.name}")

    async def stop(self) -> None:
        """Stop looking; the part itself lives on."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher

    async def _watch(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(self._period)
            if self._find() is not None:
                if self._state == "ready":
                    pause = FIRST_PAUSE
                continue
            self._enter("starting", "it ended")
            self.restarts += 1
            try:
                await self._ensure()
            except Exception as error:
                # Whatever the reason, the next look may succeed; `status` shows this one meanwhile.
                self._enter("waiting", str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._enter("ready")

    def _enter(self, state: State, detail: str = "") -> None:
        self._state, self._detail, self._since = state, detail, time.monotonic()


def _environment() -> dict[str, str]:
    """What a child gets of our environment: nothing that would configure it behind our back."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in keep if name in os.environ} | {
        "PYTHONUNBUFFERED": "1",
        # Keystone imports eventlet without using it; its DNS resolver would be loaded at every start.
        "EVENTLET_NO_GREENDNS": "yes",
    }
