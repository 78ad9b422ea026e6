"""What both sides have: names, tokens, bodies and the settings of the cloud under test."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from kilonova.agent.sim.driver import SimOptions
from kilonova.db.engine import Database, Tx
from kilonova.db.tables import instance_types
from kilonova.settings import ComputeSettings, QuotaDefaults
from kilonova.testing.cloud import StaticImages

VERSION = "2.90"
IMAGE = "5f3c9c1e-7d3b-4a52-9f0e-3c8c7b1d2a10"
FLAVOR = "42"
FLAVORS = 20
"""How many flavors a list shows."""

SETTINGS = ComputeSettings(
    quota=QuotaDefaults(instances=-1, cores=-1, ram=-1), cpu_allocation_ratio=1000.0, ram_allocation_ratio=100.0
)
HOST = SimOptions(local_gb=100_000)

SERVER: dict[str, Any] = {
    "server": {
        "name": "bench",
        "imageRef": IMAGE,
        "flavorRef": FLAVOR,
        "networks": "none",
        "metadata": {"role": "bench", "owner": "nobody"},
    }
}
BAD_SERVER: dict[str, Any] = {"server": {**SERVER["server"], "name": ""}}


def add_image(images: StaticImages) -> None:
    images.add(IMAGE, name="debian-12")


async def add_flavors(db: Database) -> None:
    """The flavors, unless they are there."""

    async def work(tx: Tx) -> None:
        if (await tx.execute(sa.select(instance_types.c.id).limit(1))).first():
            return
        for number in range(FLAVORS):
            await tx.execute(
                sa.insert(instance_types).values(
                    flavorid=FLAVOR if number == 0 else str(100 + number),
                    name=f"m1.{number}",
                    vcpus=1,
                    memory_mb=512,
                    root_gb=1,
                    extra_specs={"hw_rng:allowed": "True"},
                    created_at=dt.datetime.now(dt.UTC).replace(tzinfo=None),
                )
            )

    await db.write(work)


def request(port: int, method: str, path: str, body: bytes = b"", token: str = "admin") -> bytes:
    """A request's bytes."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Auth-Token: {token}\r\n"
        f"OpenStack-API-Version: compute {VERSION}\r\nAccept: application/json\r\n"
    )
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body
