"""Several processes of one role under one parent, which replaces those that die and hands signals on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

from kilonova.service.notify import notify

log = structlog.get_logger(__name__)

_PAUSE = 1.0
"""Seconds before a worker is replaced that died soon after its start."""

Work = Callable[[Callable[[], None]], None]
"""A worker's life; it calls what it is given when it serves."""


def run_workers(count: int, work: Work, reload: Callable[[], None] = lambda: None) -> None:
    """`reload`: what this process does at SIGHUP beside handing it on.

    Return when SIGTERM or SIGINT has ended all of them. Called before there is an event loop or a thread.

    Ends the process when one of them cannot be started.
    """
    parent = _Parent(count, work, reload)
    parent.run()
    if parent.failed:
        sys.exit(1)


class _Parent:
    def __init__(self, count: int, work: Work, reload: Callable[[], None]) -> None:
        self._count = count
        self._reload = reload
        self._work = work
        self._workers: dict[int, float] = {}
        """When each process was started."""
        self.failed = False
        self._ending = False
        self._ready = 0
        self._told = False
        self._reading, self._writing = os.pipe()

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._pass_on)
        # Without this a worker that dies would not interrupt the wait for news.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for _ in range(self._count):
            self._start()
        while self._workers:
            select.select([self._reading], [], [], 5.0)
            self._ready += os.read(self._reading, 4096).count(b"r") if self._news() else 0
            if self._ready >= self._count and not self._told:
                self._told = True
                notify("READY=1")
            self._reap()

    def _news(self) -> bool:
        return bool(select.select([self._reading], [], [], 0)[0])

    def _start(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid:
            self._workers[pid] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            _die_with_parent()
            # One manager, one who speaks to it.
            os.environ.pop("NOTIFY_SOCKET", None)
            self._work(self._tell)
            status = 0
        except Exception as error:
            message = getattr(error, "message", None)
            log.error("worker.failed", reason=message or repr(error), exc_info=message is None)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _tell(self) -> None:
        os.write(self._writing, b"r")

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            began = self._workers.pop(pid, None)
            if began is None or self._ending:
                continue
            log.warning("worker.ended", pid=pid, status=os.waitstatus_to_exitcode(status))
            if not self._told:
                # It has said why; others would say the same.
                self.failed = True
                self._end()
                continue
            if time.monotonic() - began < _PAUSE:
                time.sleep(_PAUSE)
            if not self._ending:
                self._start()

    def _end(self, *_: Any) -> None:
        self._ending = True
        notify("STOPPING=1")
        self._hand_on(signal.SIGTERM)

    def _pass_on(self, *_: Any) -> None:
        self._reload()
        self._hand_on(signal.SIGHUP)

    def _hand_on(self, number: int) -> None:
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1  # prctl(2)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
