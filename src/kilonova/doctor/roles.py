"""Who runs: roles and hosts as the database has heard of them, and what hosts say when they are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from kilonova.bus import Bus
from kilonova.bus.messages import HostQuestion
from kilonova.db import hosts
from kilonova.db.engine import Database
from kilonova.db.hosts import Service
from kilonova.doctor.database import beyond
from kilonova.doctor.findings import Finding, ok, warning, wrong
from kilonova.doctor.site import Site
from kilonova.engine import queues
from kilonova.errors import KilonovaError

CONTROL = ("nova-conductor", "nova-scheduler", "nova-consoleauth")
COMPUTE = "nova-compute"
SKEW, BAD_SKEW = 2.0, 30.0
"""Seconds between two clocks: logs of several machines cannot be read together; certificates and tokens are refused."""
MOST = 200
"""Hosts that are asked, so many at once: one look is not to be a load."""
_AT_ONCE = 50
_PATIENCE = 10.0
_NTP = "run chrony (or another NTP client) on"


async def look(site: Site, db: Database) -> tuple[list[Finding], list[Service]]:
    """And all services that are known."""
    down_time = float(site.conf.service_down_time)
    services = await db.read(lambda tx: hosts.find_services(tx, service_down_time=down_time))
    found = [_control(binary, services) for binary in CONTROL]
    found.append(_computes(services))
    waiting = await queues.read(db)
    stuck = waiting.get("stuck")
    if stuck is not None:
        fix = "'kilonova trace SERVER' tells where and why; openstack server set --state active|error frees a server"
        found.append(warning("operations", f"{stuck[0]} stuck, the oldest of {stuck[1]:%Y-%m-%d %H:%M:%S}Z", fix))
    else:
        found.append(ok("operations", "none is stuck"))
    return found, services


def _control(binary: str, services: Sequence[Service]) -> Finding:
    check = f"role: {binary}"
    mine = [service for service in services if service.binary == binary]
    up = [service.host for service in mine if service.up]
    down = [service.host for service in mine if not service.up and not service.forced_down]
    unit = f"openstack-{binary}.service"
    if not up:
        known = f"not heard of: {', '.join(down)}" if down else "none has ever reported"
        return wrong(check, known, f"systemctl start {unit}, and look into its log")
    if down:
        gone = "for what is gone for good: openstack compute service delete"
        return warning(
            check, f"on {', '.join(up)}; not heard of: {', '.join(down)}", f"systemctl start {unit} there; {gone}"
        )
    return ok(check, f"on {', '.join(up)}")


def _computes(services: Sequence[Service]) -> Finding:
    check = "hosts"
    mine = [service for service in services if service.binary == COMPUTE]
    up = [service for service in mine if service.up]
    down = [service.host for service in mine if not service.up and not service.forced_down]
    disabled = [service.host for service in mine if service.disabled]
    fix = "systemctl start openstack-nova-compute.service there, and look into its log"
    if not mine:
        return warning(check, "none has ever reported: no server can be created", fix)
    if not up:
        return wrong(check, f"none of {len(mine)} is heard of", fix)
    if down:
        return warning(check, f"{len(up)} of {len(mine)} up; not heard of: {_some(down)}", fix)
    if len(disabled) == len(mine):
        return warning(check, "all are disabled", "openstack compute service set --enable HOST nova-compute")
    return ok(check, f"{len(up)} up" + (f", {len(disabled)} of them disabled" if disabled else ""))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def own_clock(ahead: float) -> Finding:
    """This machine's, `ahead` seconds of the database's."""
    return clock("clock: this machine", ahead, "here")


def clock(check: str, ahead: float, where: str) -> Finding:
    text = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
    if abs(ahead) <= SKEW:
        return ok(check, text)
    return (wrong if abs(ahead) > BAD_SKEW else warning)(check, text, f"{_NTP} {where}")


async def ask_hosts(bus: Bus, services: Sequence[Service], ahead: float) -> list[Finding]:
    """What agents say of their clocks and hypervisors. `ahead`: of this machine's clock, seconds."""
    names = [service.host for service in services if service.binary == COMPUTE and service.up][:MOST]
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(host: str) -> list[Finding]:
        async with turns:
            return await _ask(bus, host, ahead)

    answers = await asyncio.gather(*map(one, names))
    found = [finding for answer in answers for finding in answer]
    bad = [finding for finding in found if finding.result != "ok"]
    # Of hundreds of hosts only those are shown that need somebody.
    return bad + [finding for finding in found if finding.result == "ok"][: max(0, 20 - len(bad))]


async def _ask(bus: Bus, host: str, ahead: float) -> list[Finding]:
    check = f"host: {host}"
    before = time.time()
    try:
        answer = await bus.ask(f"agent.{host}", HostQuestion(), _PATIENCE)
    except KilonovaError as error:
        return [wrong(check, error.message, f"look into the log of nova-compute on {host}, and at its broker")]
    after = time.time()
    said = answer.data.get("clock")
    if not isinstance(said, float):
        return [warning(check, answer.error or "does not say how it is", f"the same release of Kilonova on {host}")]
    found = [clock(f"clock: {host}", ahead - beyond(said, before, after), f"on {host}")]
    failure = answer.data.get("failure")
    if failure:
        found.append(wrong(check, str(failure), f"systemctl status libvirtd on {host}"))
    else:
        found.append(ok(check, str(answer.data.get("hypervisor"))))
    return found
