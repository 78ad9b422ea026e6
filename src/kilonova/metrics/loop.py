"""Watches one event loop: whatever holds it up for more than 20 ms is counted, and long stalls are reported.

The loop is asked to call back every TICK seconds, less often while it has next to nothing to do; how late it does tells
how long it was held up. A thread looks in now and then, so that the report of a long stall can name the code that ran
during it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

import structlog

from kilonova.metrics import families

log = structlog.get_logger()

TICK = 0.025
"""Seconds. Stalls of twice as much are never missed, shorter ones now and then."""
QUIET = 0.1
"""Seconds at most, the same for a loop that hardly works: waking it would be most of what it does."""
BUSY = 0.1
"""Share of the time from which on it does."""
LIMIT = 0.020
"""Seconds that nothing may hold the loop up for."""
REPORT = 0.25
"""Seconds from which on a stall is in the log."""
PAUSE = 10.0
"""Seconds between two reports: a machine that is too busy would fill the log."""
FRAMES = 8
"""Innermost calls that a report names."""


class LoopWatch:
    """Start and stop it on the loop that is to be watched."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wait = TICK
        self._due = 0.0
        self._cpu = 0.0
        self._thread = 0
        self._seen: str | None = None
        self._quiet_until = 0.0
        self._ended = threading.Event()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._ended.clear()
        self._next()
        threading.Thread(target=self._look, name="loop-watch", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        assert self._loop is not None
        self._due = time.monotonic() + self._wait
        self._cpu = time.thread_time()
        self._timer = self._loop.call_later(self._wait, self._tick)

    def _tick(self) -> None:
        late = time.monotonic() - self._due
        cpu = time.thread_time() - self._cpu
        if late > LIMIT:
            self._held_up(late, cpu)
        self._seen = None
        quiet = late <= LIMIT and cpu < BUSY * self._wait
        self._wait = min(2 * self._wait, QUIET) if quiet else TICK
        self._next()

    def _held_up(self, seconds: float, cpu: float) -> None:
        families.LOOP_STALLS.labels("busy" if cpu > seconds / 2 else "waiting").inc()
        families.LOOP_STALL_SECONDS.observe(seconds)
        now = time.monotonic()
        if seconds >= REPORT and now >= self._quiet_until:
            self._quiet_until = now + PAUSE
            log.warning("loop.held_up", seconds=round(seconds, 3), cpu=round(cpu, 3), where=self._seen)

    def _look(self) -> None:
        while not self._ended.wait(REPORT):
            if self._seen is None and time.monotonic() - self._due > REPORT / 2:
                frame = sys._current_frames().get(self._thread)
                if frame is not None:
                    calls = traceback.extract_stack(frame)[-FRAMES:]
                    self._seen = " > ".join(f"{call.filename}:{call.lineno} {call.name}" for call in calls)
