"""Servers made and deleted on the simulated hypervisor, every transaction durable (synchronous=FULL)."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import scene
from bench.processes import Client, Server
from bench.watch import Watch

_BODY = json.dumps(scene.SERVER).encode()
ACTIVE = "deleted = 0 AND vm_state = 'active'"


@dataclass(frozen=True, kw_only=True)
class Burst:
    """`per_second` from the first request to all ACTIVE; `cpu` processor seconds of a server."""

    per_second: float
    accepted_per_second: float
    cpu: float


def post(port: int) -> list[bytes]:
    return [scene.request(port, "POST", "/v2.1/servers", _BODY)]


def burst(cloud: Server, client: Client, watch: Watch, count: int, connections: int = 100) -> Burst:
    """`count` requests, up to 100 at the same time."""
    before, cpu = watch.count(ACTIVE), cloud.cpu()
    started = time.perf_counter()
    client.begin(cloud.port, post(cloud.port), connections=min(connections, count), count=count)
    ended = watch.wait(ACTIVE, before + count)
    answer = client.result()
    if answer["statuses"] != {"202": count}:
        raise RuntimeError(f"creating servers: answers with {answer['statuses']}")
    watch.settled()
    return Burst(
        per_second=count / (ended - started),
        accepted_per_second=count / answer["elapsed"],
        cpu=(cloud.cpu() - cpu) / count,
    )


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """Seconds, medians."""

    accepted: float
    active: float
    gone: float


def one_by_one(cloud: Server, client: Client, watch: Watch, count: int = 20) -> OneByOne:
    """From the request until the database says ACTIVE, or deleted."""
    accepted, active, gone, uuids = [], [], [], []
    for _ in range(count):
        started = time.perf_counter()
        answer = client.send(cloud.port, post(cloud.port), count=1, keep=True)
        uuid = json.loads(answer["bodies"][0])["server"]["id"]
        active.append(watch.wait_one(uuid, "vm_state = 'active'") - started)
        accepted.append(answer["median"])
        uuids.append(uuid)
    for uuid in uuids:
        started = time.perf_counter()
        answer = client.send(cloud.port, [scene.request(cloud.port, "DELETE", f"/v2.1/servers/{uuid}")], count=1)
        if answer["statuses"] != {"204": 1}:
            raise RuntimeError(f"deleting a server: answers with {answer['statuses']}")
        gone.append(watch.wait_one(uuid, "deleted != 0") - started)
    watch.settled()
    return OneByOne(
        accepted=statistics.median(accepted), active=statistics.median(active), gone=statistics.median(gone)
    )


@dataclass(frozen=True, kw_only=True)
class Survival:
    """`acknowledged` with 202 before the kill, `lost` of them, `active` after the next start."""

    acknowledged: int
    lost: int
    active: int


def survival(start: Callable[[], Server], directory: Path, client: Client, count: int = 300) -> Survival:
    """kill -9 in the middle of creating, and a new start on the same directory."""
    cloud = start()
    client.begin(cloud.port, post(cloud.port), connections=8, count=count, keep=True)
    watch = Watch(directory)
    while watch.count() < count // 3:
        time.sleep(0.005)
    cloud.kill()
    answer = client.result()
    told = {json.loads(body)["server"]["id"] for body in answer["bodies"]}
    cloud = start()
    try:
        watch.settled()
        kept, active = set(watch.uuids()), set(watch.uuids(ACTIVE))
    finally:
        watch.close()
        cloud.stop()
    return Survival(acknowledged=len(told), lost=len(told - kept), active=len(told & active))
