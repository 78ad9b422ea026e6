"""All looks, one after the other, each of which may fail for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kilonova.bus.rabbit import RabbitBus
from kilonova.db.engine import Database
from kilonova.db.hosts import Service
from kilonova.doctor import broker, console, database, machine, roles, services
from kilonova.doctor.findings import Finding, ok, worst, wrong
from kilonova.doctor.site import Site, is_agents
from kilonova.errors import KilonovaError

PATIENCE = 120.0
"""Seconds for one look; each has shorter ones inside."""

Tell = Callable[[Finding], None]


class Examination:
    """`tell` gets each finding as soon as there is one; `findings` has all of them."""

    def __init__(self, site: Site, tell: Tell) -> None:
        self._site = site
        self._tell = tell
        self._services: list[Service] = []
        self._ahead: float | None = None
        self.findings: list[Finding] = []

    async def run(self) -> None:
        site = self._site
        await self._look("database", self._database)
        if site.broker is not None:
            await self._look("broker", self._broker)
        if site.running:
            await self._look("identity", self._others)
            await self._look("console", lambda: console.look(site))
        known = {service.host for service in self._services if service.binary == roles.COMPUTE}
        if machine.is_host(site, known):
            await self._look("libvirt", lambda: machine.hypervisor(site))
        await self._look("disk", lambda: asyncio.to_thread(machine.disks, site))
        await self._look("secrets", lambda: asyncio.to_thread(machine.secrets, site))

    async def _look(self, what: str, look: Callable[[], Awaitable[list[Finding]]]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await look()
        except KilonovaError as error:
            found = [wrong(what, error.message, f"correct it in {self._site.name}")]
        except Exception as error:
            found = [wrong(what, f"could not be looked at: {error!r}", "this is a mistake of kilonova doctor's")]
        for finding in found:
            self.findings.append(finding)
            self._tell(finding)

    async def _database(self) -> list[Finding]:
        site = self._site
        if site.database is None:
            named = bool(site.conf.database.connection)
            return [] if named else [ok("database", "none is named: hosts, console proxies and nova-cert need none")]
        found, self._ahead = await database.look(site)
        if worst(found) == "wrong" or not site.running:
            return found
        if site.broker is not None and self._ahead is not None:
            found.append(roles.own_clock(self._ahead))
        db = Database(site.database, pool_size=1)
        try:
            more, self._services = await roles.look(site, db)
        finally:
            await db.close()
        return found + more

    async def _others(self) -> list[Finding]:
        site = self._site
        found, own_planes = await services.look(site)
        if own_planes and site.broker is not None and not is_agents(site):
            found += await broker.planes(site, [each.host for each in self._services if each.binary == roles.COMPUTE])
        return found

    async def _broker(self) -> list[Finding]:
        site = self._site
        assert site.broker is not None
        found = await broker.look(site)
        if worst(found) == "wrong" or self._ahead is None or is_agents(site):
            return found
        bus = RabbitBus(site.broker)
        await bus.start()
        try:
            return found + await roles.ask_hosts(bus, self._services, self._ahead)
        finally:
            await bus.close()
