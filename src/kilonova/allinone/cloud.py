"""One cloud in one process tree: Keystone and Glance as children, libvirtd beside us, our own roles inside."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from kilonova.allinone import libvirtd, processes
from kilonova.allinone.clients import write_client_files
from kilonova.allinone.errors import CloudError
from kilonova.allinone.neutron import network_spec
from kilonova.allinone.ports import check_free
from kilonova.allinone.secrets import Secrets
from kilonova.allinone.services import identity_spec, image_spec
from kilonova.allinone.settings import CloudSettings
from kilonova.allinone.status import Report, write_report
from kilonova.allinone.supervisor import Child, Keeper, Part, PartStatus, State
from kilonova.errors import KilonovaError

BEAT = 1.0
"""Seconds between two reports."""

Progress = Callable[[str], None]


class Roles(Protocol):
    """Our own roles (kilonova.roles)."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def ready(self) -> str | None:
        """None when a server can be created, else the reason."""


class Cloud:
    """Starts everything, reports what lives, stops everything but the guests."""

    def __init__(
        self, settings: CloudSettings, secrets: Secrets, *, options: dict[str, str | int], progress: Progress
    ) -> None:
        self._settings = settings
        self._options = options
        self._progress = progress
        run, log = settings.state_dir / "run", settings.log_dir
        self._keystone = Child(identity_spec(settings, secrets), run_dir=run, log_dir=log)
        self._glance = Child(image_spec(settings, secrets), run_dir=run, log_dir=log)
        self._children = [self._keystone, self._glance]
        if settings.networking == "neutron":
            self._children.append(Child(network_spec(settings, secrets), run_dir=run, log_dir=log))
        self._parts: list[Part] = [*self._children]
        if settings.hypervisor == "libvirt":
            self._parts.append(_libvirtd_keeper(settings))
        self._secrets = secrets
        self._roles: Roles | None = None
        self._roles_since = 0.0
        self._reporter: asyncio.Task[None] | None = None
        self._ready: str | None = "starting"

    async def start(self) -> None:
        """Return when a server can be created. Raises CloudError with the reason when that cannot be reached.

        Stops what it had started when it raises or is cancelled.
        """
        for child in self._children:
            await asyncio.to_thread(child.end_leftover)
        await asyncio.to_thread(check_free, self._settings)
        write_client_files(self._settings, self._secrets)
        self._reporter = asyncio.create_task(self._report_for_ever(), name="report")
        try:
            await self._start_together()
            await self._wait_until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End roles, then the services they call. Guests and their libvirtd live on."""
        if self._roles is not None:
            await self._roles.stop()
        await asyncio.gather(*(part.stop() for part in self._parts))
        if self._reporter is not None:
            self._reporter.cancel()
            with suppress(asyncio.CancelledError):
                await self._reporter
        (self._settings.state_dir / "run/status.json").unlink(missing_ok=True)

    async def _start_together(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                # Imported while the children start.
                making = group.create_task(asyncio.to_thread(_make_roles, self._settings))
                for part in self._parts:
                    group.create_task(self._timed(part.status().name, part.start()))
        except BaseExceptionGroup as failures:
            # The first reason is the one to act on; the others are mostly its consequences.
            raise _first(failures) from None
        # Last, since operations that were under way go on at once, and they call the services.
        self._roles = making.result()
        await self._timed("compute", self._roles.start())
        self._roles_since = time.monotonic()

    async def _timed(self, name: str, work: Awaitable[None]) -> None:
        began = time.monotonic()
        await work
        self._progress(f"{name} is up ({time.monotonic() - began:.1f} s)")

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while (reason := await self._why_not_ready()) is not None:
            if time.monotonic() > deadline:
                raise CloudError(f"no server can be created: {reason}", remedy=f"see {self._settings.log_dir}")
            await asyncio.sleep(0.05)
        await self._report()

    async def _why_not_ready(self) -> str | None:
        for part in self._parts:
            status = part.status()
            if status.state != "ready":
                return f"{status.name} is {status.state}" + (f" ({status.detail})" if status.detail else "")
        if self._roles is None or not self._roles_since:
            return "compute is starting"
        return await self._roles.ready()

    async def _report_for_ever(self) -> None:
        while True:
            with suppress(OSError):  # a full disk must not end the cloud; silence is seen as such
                await self._report()
            await asyncio.sleep(BEAT)

    async def _report(self) -> None:
        try:
            reason = await asyncio.wait_for(self._why_not_ready(), 10)
        except TimeoutError:
            reason = "the compute roles did not say within 10 s whether they are ready"
        except KilonovaError as error:
            reason = error.message
        owner = processes.identify(os.getpid())
        assert owner is not None
        report = Report(
            owner=owner,
            beat=time.monotonic(),
            ready=reason is None,
            reason=reason or "",
            hypervisor=self._settings.hypervisor,
            options=self._options,
            parts=[*(part.status() for part in self._parts), self._roles_status(reason)],
        )
        await asyncio.to_thread(write_report, self._settings.state_dir, report)

    def _roles_status(self, reason: str | None) -> PartStatus:
        if self._roles is None or not self._roles_since:
            return PartStatus(name="compute", state="starting", pid=os.getpid())
        state: State = "ready" if reason is None else "waiting"
        return PartStatus(name="compute", state=state, pid=os.getpid(), since=self._roles_since, detail=reason or "")


def _libvirtd_keeper(settings: CloudSettings) -> Keeper:
    async def ensure() -> None:
        try:
            await asyncio.to_thread(libvirtd.ensure_libvirtd, settings.state_dir, settings.netns)
        except KilonovaError as error:
            raise CloudError(error.message) from None

    def find() -> int | None:
        daemon = libvirtd.running(settings.state_dir)
        return daemon.pid if daemon is not None else None

    return Keeper("libvirtd", ensure=ensure, find=find)


def _make_roles(settings: CloudSettings) -> Roles:
    # Imported late: the children start meanwhile.
    module: Any = importlib.import_module("kilonova.roles")
    return cast(Roles, module.Roles(settings))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            return _first(failure)
        return failure
    return failures
