"""The frame of a role's process: its log, its signals, its end.

SIGTERM: what is under way gets `graceful_shutdown_timeout` seconds, the rest is left to whoever is next; a second one
ends at once. SIGHUP: the log is opened anew and its level read again, and whatever the role said it can reload (policy,
certificates); options that changed and take a start are named in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import structlog
from oslo_config import cfg

from kilonova import config
from kilonova import log as logs
from kilonova.config_options import GROUPS
from kilonova.errors import Invalid, KilonovaError
from kilonova.health import STARTING, STOPPING, Health
from kilonova.metrics import Probe
from kilonova.observe import observe
from kilonova.service import deployment
from kilonova.service.http import Listening, listen
from kilonova.service.notify import notify
from kilonova.service.parts import Parts

log = structlog.get_logger(__name__)

DEFAULT_FILES = (Path("/etc/nova/nova.conf"),)


@dataclass(kw_only=True)
class Started:
    """What a role's start is given, and what it leaves behind."""

    parts: Parts
    listeners: dict[str, Listening] = field(default_factory=dict)
    reloads: list[Callable[[cfg.ConfigOpts], None]] = field(default_factory=list)
    """Called at SIGHUP with the configuration read anew."""
    probes: list[Probe] = field(default_factory=list)
    """What the metrics' listener asks before it answers."""

    @property
    def conf(self) -> cfg.ConfigOpts:
        return self.parts.conf

    @property
    def stack(self) -> contextlib.AsyncExitStack:
        return self.parts.stack

    @property
    def grace(self) -> int:
        return int(self.conf.graceful_shutdown_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """`start` returns when the role serves; what it made ends with the stack."""

    name: str
    program: str
    """Its name in the guide, in lists of services and in file names of logs."""
    start: Callable[[Started], Awaitable[None]]
    workers: Callable[[cfg.ConfigOpts], int] = lambda conf: 1
    listeners: Callable[[cfg.ConfigOpts], dict[str, deployment.Listener]] = lambda conf: {}
    does_without: frozenset[str] = frozenset()
    """Names of health checks without which it goes on with its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What the command line says."""

    files: tuple[Path, ...] = DEFAULT_FILES
    log_file: Path | None = None
    debug: bool = False


class Log:
    """The role's log, in a file or on standard error."""

    def __init__(self, program: str, invocation: Invocation) -> None:
        self._program = program
        self._invocation = invocation
        self._file: TextIO | None = None

    def open(self, conf: cfg.ConfigOpts) -> None:
        """Again: the file is opened anew. Raises Invalid."""
        before = self._file
        path = self._invocation.log_file or deployment.log_path(conf, self._program)
        try:
            self._file = path.open("a", buffering=1) if path is not None else None
        except OSError as error:
            raise Invalid(f"Configuration: the log {path} cannot be opened: {error.strerror}.") from error
        level = "DEBUG" if self._invocation.debug else deployment.log_level(conf)
        logs.configure(self._file, level=level, as_json=self._file is not None or not sys.stderr.isatty())
        if before is not None:
            before.close()


def run(role: Role, invocation: Invocation) -> None:
    """Be this role until a signal ends it. Raises KilonovaError for what keeps it from starting."""
    conf = config.load(invocation.files)
    opened = Log(role.program, invocation)
    opened.open(conf)
    _tell_of(invocation.files)
    listeners = {
        name: Listening(socket=listen(each.address, each.port), certificate=each.certificate)
        for name, each in role.listeners(conf).items()
    }
    count = role.workers(conf)
    if count > 1:
        from kilonova.service.workers import run_workers

        run_workers(
            count,
            lambda ready: _loop(role, invocation, conf, opened, listeners, ready),
            reload=lambda: _reopen(opened, invocation.files),
        )
        return
    _loop(role, invocation, conf, opened, listeners, lambda: notify("READY=1", f"MAINPID={os.getpid()}"))


def _reopen(opened: Log, files: Sequence[Path]) -> None:
    """The parent's log; what is wrong with the files is its workers' to tell."""
    with contextlib.suppress(KilonovaError):
        opened.open(config.load(files))


def _tell_of(files: Sequence[Path]) -> None:
    findings = [finding for path in files for finding in config.review(path)]
    if ignored := [finding.text for finding in findings if not finding.old]:
        log.warning("configuration.ignored", options=ignored)
    if old := [finding.text for finding in findings if finding.old]:
        log.info("configuration.old_names", options=old)


def _loop(
    role: Role,
    invocation: Invocation,
    conf: cfg.ConfigOpts,
    opened: Log,
    listeners: dict[str, Listening],
    ready: Callable[[], None],
) -> None:
    import uvloop

    uvloop.run(_main(role, invocation, conf, opened, listeners, ready))


async def _main(
    role: Role,
    invocation: Invocation,
    conf: cfg.ConfigOpts,
    opened: Log,
    listeners: dict[str, Listening],
    ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        if ended.is_set():
            log.warning("process.ended_at_once", role=role.name)
            os._exit(1)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    reloads: list[Callable[[cfg.ConfigOpts], None]] = [opened.open]
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(role, invocation.files, conf, reloads))
    async with contextlib.AsyncExitStack() as stack:
        health = Health(waived=role.does_without, settings=config.health_settings(conf), phase=STARTING)
        started = Started(parts=Parts(stack, conf, role.program, health), listeners=listeners, reloads=reloads)
        starting = asyncio.ensure_future(_start(role, started))
        ending = asyncio.create_task(ended.wait())
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return
        await starting
        log.info("process.ready", role=role.name, pid=os.getpid())
        health.phase = None
        ready()
        await ended.wait()
        health.phase = STOPPING
        log.info("process.stopping", role=role.name)
        notify("STOPPING=1")
    log.info("process.stopped", role=role.name)


async def _start(role: Role, started: Started) -> None:
    parts = started.parts
    await observe(
        parts.stack,
        parts.conf,
        role.name,
        probes=started.probes,
        health=parts.health,
        reloads=started.reloads,
    )
    await role.start(started)


RELOADED = frozenset(
    {
        ("DEFAULT", "debug"),
        ("DEFAULT", "verbose"),
        ("DEFAULT", "log_file"),
        ("DEFAULT", "log_dir"),
        ("DEFAULT", "cert"),
        ("DEFAULT", "key"),
        ("wsgi", "ssl_cert_file"),
        ("wsgi", "ssl_key_file"),
        ("prometheus", "ssl_cert_file"),
        ("prometheus", "ssl_key_file"),
    }
)
"""Options that count from SIGHUP on, by section; all others from the next start."""


def _reload(
    role: Role, files: Sequence[Path], before: cfg.ConfigOpts, reloads: Sequence[Callable[[cfg.ConfigOpts], None]]
) -> None:
    notify("RELOADING=1")
    try:
        conf = config.load(files)
        # What would stop a start is found before anything is changed.
        role.listeners(conf)
        config.metrics_certificate(conf)
        for each in reloads:
            each(conf)
        log.info("process.reloaded")
        if late := needing_a_start(before, conf):
            log.warning("process.options_need_a_start", role=role.name, options=late)
    except KilonovaError as error:
        log.error("process.not_reloaded", reason=error.message)
    notify("READY=1")


def needing_a_start(before: cfg.ConfigOpts, after: cfg.ConfigOpts) -> list[str]:
    """Names of options that the process has otherwise than the file now says; never their values."""
    changed = []
    for group, options in GROUPS.items():
        for option in options:
            old, new = ((conf if group == "DEFAULT" else conf[group])[option.dest] for conf in (before, after))
            if old != new and (group, option.name) not in RELOADED:
                changed.append(f"[{group}] {option.name}")
    return changed
