"""Rows of servers put straight into the database, for tests of what the API shows and changes."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import sqlalchemy as sa

from kilonova.db import servers
from kilonova.db import tags as tag_rows
from kilonova.db.engine import Database, Tx
from kilonova.db.tables import compute_nodes, instance_types, instances, key_pairs, services
from kilonova.db.types import database_seconds
from kilonova.testing.identity import PROJECT

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678900)  # noqa: DTZ001 - as the database has it
IMAGE = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
FLAVOR = {
    "id": 1,
    "flavorid": "1",
    "name": "m1.tiny",
    "vcpus": 1,
    "memory_mb": 512,
    "root_gb": 1,
    "ephemeral_gb": 0,
    "swap_mb": 0,
    "extra_specs": {"hw:cpu_policy": "shared"},
}
ADDRESSES = {
    "private": [
        {
            "version": 4,
            "addr": "192.168.1.3",
            "OS-EXT-IPS:type": "fixed",
            "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:4c:2c:30",
        },
        {
            "version": 6,
            "addr": "fe80::3",
            "OS-EXT-IPS:type": "fixed",
            "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:4c:2c:30",
        },
    ]
}


def values(name: str = "vm", **changes: Any) -> dict[str, Any]:
    """The columns of a server that runs on host-1, with `changes`."""
    row: dict[str, Any] = {
        "uuid": str(uuid.uuid4()),
        "project_id": PROJECT,
        "user_id": "member",
        "display_name": name,
        "hostname": name,
        "reservation_id": "r-12345678",
        "image_ref": IMAGE,
        "image": {"name": "image", "properties": {"hw_disk_bus": "virtio", "os_distro": "debian", "own": "word"}},
        "flavorid": "1",
        "flavor": FLAVOR,
        "vcpus": 1,
        "memory_mb": 512,
        "root_gb": 1,
        "vm_state": "active",
        "power_state": 1,
        "host": "host-1",
        "node": "host-1",
        "availability_zone": "nova",
        "metadata": {},
        "security_groups": [],
        "addresses": {},
        "scheduler_hints": {},
        "root_device_name": "/dev/vda",
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "launched_at": MOMENT,
    }
    return row | changes


async def add(db: Database, name: str = "vm", *, tags: tuple[str, ...] = (), **changes: Any) -> str:
    """Insert one server and return its id."""
    row = values(name, **changes)

    async def work(tx: Tx) -> None:
        await servers.insert(tx, row)
        await tag_rows.add(tx, row["uuid"], tags)

    await db.write(work)
    return str(row["uuid"])


async def delete(db: Database, server_id: str) -> None:
    """As the end of its deletion leaves it."""
    await db.write(lambda tx: servers.update(tx, server_id, deleted=instances.c.id, vm_state="deleted", host=None))


async def get(db: Database, server_id: str) -> servers.Server:
    found = await db.read(lambda tx: servers.get(tx, server_id, deleted=True))
    assert found is not None
    return found


async def add_service(db: Database, host: str = "host-1", *, age: float = 0.0, **changes: Any) -> None:
    """The compute service of a host, last heard of `age` seconds ago."""
    row: dict[str, Any] = {"uuid": str(uuid.uuid4()), "host": host, "binary": "nova-compute", "created_at": MOMENT}
    if "topic" in services.c:
        row["topic"] = "compute"

    async def work(tx: Tx) -> None:
        await tx.execute(sa.insert(services).values(**row | changes, last_seen=database_seconds() - age))

    await db.write(work)


async def add_node(db: Database, host: str = "host-1", **changes: Any) -> None:
    """The host's compute node of the same name."""
    row: dict[str, Any] = {
        "uuid": str(uuid.uuid4()), "service_id": 1, "host": host, "hypervisor_hostname": host,
        "hypervisor_type": "QEMU", "hypervisor_version": 7002000, "vcpus": 8, "memory_mb": 8192, "local_gb": 100,
        "vcpus_max": 128, "memory_mb_max": 11520, "local_gb_max": 100, "cpu_info": {}, "traits": [],
        "created_at": MOMENT,
    }  # fmt: skip

    async def work(tx: Tx) -> None:
        await tx.execute(sa.insert(compute_nodes).values(**row | changes))

    await db.write(work)


async def add_flavor(db: Database, flavor_id: str = "1", **changes: Any) -> None:
    row: dict[str, Any] = {
        "flavorid": flavor_id,
        "name": f"flavor-{flavor_id}",
        "vcpus": 1,
        "memory_mb": 512,
        "root_gb": 1,
        "extra_specs": {},
        "created_at": MOMENT,
    }

    async def work(tx: Tx) -> None:
        await tx.execute(sa.insert(instance_types).values(**row | changes))

    await db.write(work)


async def add_key(db: Database, user_id: str, name: str) -> None:
    row = {"user_id": user_id, "name": name, "type": "ssh", "fingerprint": "ab", "public_key": "ssh-ed25519 AAAA"}

    async def work(tx: Tx) -> None:
        await tx.execute(sa.insert(key_pairs).values(**row, created_at=MOMENT))

    await db.write(work)


async def contents(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, to see that nothing changed."""

    async def read(tx: Tx) -> dict[str, list[tuple[Any, ...]]]:
        found = {}
        for table in instances.metadata.sorted_tables:
            rows = (await tx.execute(sa.select(table))).all()
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
        return found

    return await db.read(read)
