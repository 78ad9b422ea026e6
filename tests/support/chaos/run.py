"""The chaos run: servers made, rebooted, rebuilt and deleted while everything around them breaks; then the audit.

`python -m tests.support.chaos --seed N` prints what was injected and what was found. The seed decides what is done to
which server, what breaks when and which messages suffer; how processes run is not its.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kilonova.compute import states
from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import SILENT, Plan, Report
from tests.support.chaos.scene import Scene
from tests.support.chaos.users import Client
from tests.support.cluster import DEFAULTS, Cluster, make_cluster
from tests.support.load import Load, server
from tests.support.machines import Site, place_of
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker
from tests.workflows.harness.audit import GONE

ON_MACHINES = {"api": 2, "conductor": 2, "scheduler": 2, "compute": 3}
REFUSED = 20
"""So much more than capacity is asked for at the end."""


async def chaos(
    cluster: Cluster, plan: Plan, make_faults: Callable[[Cluster, Plan, Report], Faults] = Faults
) -> Report:
    """Run it, and audit."""
    report = Report(plan=plan)
    scene = Scene(cluster)
    try:
        # A machine that is cut off does not even refuse a connection.
        async with Load(cluster, clients=64, connecting=20 if plan.machines else 60) as load:
            await load.flavor("tiny")
            client = Client(load, plan, report)
            faults = asyncio.ensure_future(make_faults(cluster, plan, report).run())
            lives = [asyncio.ensure_future(life) for life in client.lives(plan)]
            await faults
            began = time.monotonic()
            await asyncio.gather(*lives)
            report.wrong = await _rest(scene, client, began + plan.quiescence)
            report.rest = time.monotonic() - began
            await tell(scene, report)
            report.ports = len(scene.network.collections["ports"])
            if plan.vcpus is not None and not report.wrong:
                report.wrong += await _fill(cluster, load, client, plan.vcpus)
                report.wrong += await _rest(scene, client, time.monotonic() + plan.quiescence)
        for member in cluster.members.values():
            with suppress(OSError, ValueError):
                report.messages.update(json.loads(member.log.with_suffix(".weather").read_text()))
    finally:
        await scene.db.close()
    return report


async def _rest(scene: Scene, client: Client, until: float) -> list[str]:
    """What the audit finds once it finds nothing, or too late."""
    while True:
        wrong = await scene.wrong(client.acknowledged, client.deleted)
        if not wrong or time.monotonic() > until:
            return wrong
        await asyncio.sleep(2.0)


async def tell(scene: Scene, report: Report) -> None:
    """How servers ended; those in ERROR for a reason of their own are wrong."""
    for row in await scene.all_servers():
        report.ended[GONE if row.deleted else row.vm_state] += 1
        if not row.deleted and row.vm_state == states.ERROR:
            message = str((row.fault or {}).get("message"))
            report.faults[SILENT.sub(r"Host '\1-...' does not answer.", message)] += 1
            silent = SILENT.fullmatch(message)
            if silent is None or silent[1] not in report.struck:
                report.wrong.append(f"in ERROR for no injected reason: {row.uuid}: {message}")


async def _fill(cluster: Cluster, load: Load, client: Client, vcpus: int) -> list[str]:
    """More demand than capacity, on hosts that were struck: whatever is still held for nobody is missing now."""
    capacity = len(cluster.of("compute")) * cluster.hosts * vcpus
    failed = [each["id"] for each in await load.servers() if each["status"] == "ERROR"]
    await asyncio.gather(*(client.delete(uuid) for uuid in failed))
    while any(each["status"] != "ACTIVE" for each in await load.servers()):
        await asyncio.sleep(1.0)
    # An answer may be lost on the way of one that was made.
    while (lacking := capacity + REFUSED - len(await load.servers())) > 0:
        await asyncio.gather(*(client.ask("fill", "POST", "/servers", server("more")) for _ in range(lacking)))
    count = len(await load.servers())
    found = await load.settled(count)
    ended = Counter(each["status"] for each in found)
    refused = Counter(each["fault"]["message"].split(".")[0] for each in found if each["status"] == "ERROR")
    client.report.filled = f"{ended['ACTIVE']} servers in {capacity} places, {ended['ERROR']} more were refused"
    wanted = ({"ACTIVE": capacity, "ERROR": count - capacity}, {"No valid host was found": count - capacity})
    return [] if (ended, refused) == wanted else [f"filled: {ended}, {refused}"]


def options(plan: Plan) -> dict[str, dict[str, object]]:
    """What nova.conf says for this plan."""
    sim: dict[str, object] = {"durations": "running:0.1,disks:0.1,absent:0.05", "memory_mb": 1 << 20}
    default: dict[str, object] = {
        "service_down_time": plan.down,
        "report_interval": max(1, plan.down // 6),
        "sync_power_state_interval": 2 * plan.down,
    }
    if plan.vcpus is not None:
        sim["vcpus"] = plan.vcpus
        default["initial_cpu_allocation_ratio"] = 1.0
    return {
        "DEFAULT": default,
        "conductor": {"lease": plan.lease},
        "oslo_messaging_rabbit": {"heartbeat_timeout_threshold": max(2, plan.lease // 3)},
        "sim": sim,
    }


WEATHER = "0.05 0.05 0.05 4"
"""Lost, doubled, late; seconds late at most."""


@contextmanager
def stage(mariadb: MariaDB, broker: Broker, plan: Plan, where: Site | None = None) -> Iterator[Cluster]:
    """Its cluster, with the ways to break it: gates, or the machines of `where`."""
    with make_cluster(
        mariadb, broker, counts=DEFAULTS if where is None else ON_MACHINES, hosts=plan.hosts, options=options(plan),
        gated=where is None, weather=f"{plan.seed} {WEATHER}", networking=True,
        place=lambda role, number: place_of(where, role, number),
    ) as cluster:  # fmt: skip
        yield cluster
