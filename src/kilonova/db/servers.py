"""Rows of servers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import instances


@dataclass(frozen=True, slots=True)
class Server:
    """One server; the fields are the columns of `instances`, in their order. Times are UTC."""

    id: int
    uuid: str
    project_id: str
    user_id: str
    display_name: str
    display_description: str | None
    hostname: str
    reservation_id: str
    launch_index: int
    image_ref: str
    image: dict[str, Any] | None
    kernel_id: str
    ramdisk_id: str
    flavorid: str
    flavor: dict[str, Any]
    vcpus: int
    memory_mb: int
    root_gb: int
    ephemeral_gb: int
    swap_mb: int
    vm_state: str
    task_state: str | None
    power_state: int
    progress: int
    host: str | None
    node: str | None
    claimed: bool
    claim: dict[str, Any] | None
    availability_zone: str | None
    pinned_availability_zone: str | None
    key_name: str | None
    key_data: str | None
    key_type: str | None
    user_data: str | None
    config_drive: str
    access_ip_v4: str | None
    access_ip_v6: str | None
    metadata: dict[str, str]
    disk_config: str
    locked: bool
    locked_by: str | None
    locked_reason: str | None
    root_device_name: str | None
    security_groups: list[dict[str, Any]]
    addresses: dict[str, list[dict[str, Any]]]
    network_info: Any
    requested_networks: Any
    scheduler_hints: dict[str, Any]
    server_group: str | None
    trusted_certs: list[str] | None
    fault: dict[str, Any] | None
    machine_type: str | None
    cpu_model: str | None
    guest_password: str | None
    desired_power: int | None
    operation_id: int | None
    deleting: bool
    generation: int
    created_at: dt.datetime
    updated_at: dt.datetime | None
    launched_at: dt.datetime | None
    terminated_at: dt.datetime | None
    deleted_at: dt.datetime | None
    deleted: int

    @property
    def name(self) -> str:
        """The domain's name on the hypervisor."""
        return f"instance-{self.id:08x}"

    @property
    def disk_gb(self) -> int:
        """What the server takes of its host's disk: root, ephemeral and swap, GiB rounded up."""
        return self.root_gb + self.ephemeral_gb + -(-self.swap_mb // 1024)


# Built once: making a statement takes longer than running it.
_BY_UUID = sa.select(instances).where(instances.c.uuid == sa.bindparam("my_uuid"))
_BY_UUID_LOCKED = _BY_UUID.with_for_update()
_INSERT = sa.insert(instances)
_HELD = sa.update(instances).where(
    instances.c.uuid == sa.bindparam("my_uuid"),
    instances.c.deleted == 0,
    instances.c.operation_id == sa.bindparam("my_operation"),
)


def from_row(row: Sequence[Any]) -> Server:
    return Server(*row)


async def get(
    tx: Tx, uuid: str, *, project_id: str | None = None, deleted: bool = False, lock: bool = False
) -> Server | None:
    """The server, or None; with `project_id` only that project's, with `deleted` also a deleted one.

    `lock` keeps others from changing it until the transaction ends.
    """
    row = (await tx.execute(_BY_UUID_LOCKED if lock else _BY_UUID, {"my_uuid": uuid})).first()
    if row is None:
        return None
    server = from_row(row)
    if (server.deleted and not deleted) or (project_id is not None and server.project_id != project_id):
        return None
    return server


async def get_many(tx: Tx, uuids: Sequence[str]) -> list[Server]:
    rows = await tx.execute(sa.select(instances).where(instances.c.uuid.in_(uuids)))
    return [from_row(row) for row in rows]


async def insert(tx: Tx, values: dict[str, Any]) -> int:
    """Insert one server and return its row id."""
    result = await tx.execute(_INSERT, values)
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


async def update(tx: Tx, uuid: str, *guard: sa.ColumnElement[bool], **values: Any) -> bool:
    """Change a server that is not deleted where `guard` holds; False when no row matched."""
    statement = sa.update(instances).where(instances.c.uuid == uuid, instances.c.deleted == 0, *guard)
    return bool((await tx.execute(statement.values(**values))).rowcount)


async def update_held(tx: Tx, uuid: str, operation: int, values: dict[str, Any]) -> bool:
    """Change a server whose slot `operation` has; False when it has not."""
    return bool((await tx.execute(_HELD, {"my_uuid": uuid, "my_operation": operation} | values)).rowcount)
