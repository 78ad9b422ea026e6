"""Rows of server groups. A member is a server, not deleted, whose `server_group` is the group's UUID."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import instance_group_hosts, instance_groups, instances


@dataclass(frozen=True, slots=True)
class ServerGroup:
    """The fields are the columns of `instance_groups`, in their order. Times are UTC."""

    id: int
    uuid: str
    project_id: str
    user_id: str
    name: str
    policy: str
    rules: dict[str, Any]
    created_at: dt.datetime
    updated_at: dt.datetime | None

    @property
    def max_server_per_host(self) -> int:
        """Of a group with anti-affinity."""
        return int(self.rules.get("max_server_per_host", 1))


_BY_UUID = sa.select(instance_groups).where(instance_groups.c.uuid == sa.bindparam("my_uuid"))
_BY_UUID_LOCKED = _BY_UUID.with_for_update()


async def get(tx: Tx, uuid: str, *, project_id: str | None = None, lock: bool = False) -> ServerGroup | None:
    """The group, or None; with `project_id` only that project's. `lock` holds its row until the transaction ends."""
    row = (await tx.execute(_BY_UUID_LOCKED if lock else _BY_UUID, {"my_uuid": uuid})).first()
    if row is None or project_id not in (None, row.project_id):
        return None
    return ServerGroup(*row)


async def find(tx: Tx, *, project_id: str | None, limit: int, offset: int) -> list[ServerGroup]:
    """One page in the order of their ids, of one project or of all."""
    query = sa.select(instance_groups).order_by(instance_groups.c.id).limit(limit).offset(offset)
    if project_id is not None:
        query = query.where(instance_groups.c.project_id == project_id)
    return [ServerGroup(*row) for row in await tx.execute(query)]


async def members(tx: Tx, uuids: Sequence[str]) -> dict[str, list[str]]:
    """The servers of these groups, by the group's UUID, in the order of their creation."""
    c = instances.c
    query = sa.select(c.server_group, c.uuid).where(c.server_group.in_(uuids), c.deleted == 0).order_by(c.id)
    found: dict[str, list[str]] = {uuid: [] for uuid in uuids}
    for row in await tx.execute(query):
        found[row.server_group].append(row.uuid)
    return found


async def count(tx: Tx, project_id: str, user_id: str | None = None) -> int:
    """Groups of a project, or of one of its users."""
    c = instance_groups.c
    query = sa.select(sa.func.count()).select_from(instance_groups).where(c.project_id == project_id)
    if user_id is not None:
        query = query.where(c.user_id == user_id)
    return int((await tx.execute(query)).scalar_one())


async def count_members(tx: Tx, uuid: str, user_id: str) -> int:
    """The user's servers in the group."""
    c = instances.c
    query = sa.select(sa.func.count()).select_from(instances)
    query = query.where(c.server_group == uuid, c.deleted == 0, c.user_id == user_id)
    return int((await tx.execute(query)).scalar_one())


async def insert(tx: Tx, values: dict[str, Any]) -> ServerGroup:
    key = (await tx.execute(sa.insert(instance_groups).values(values))).inserted_primary_key
    assert key is not None
    row = (await tx.execute(sa.select(instance_groups).where(instance_groups.c.id == key[0]))).one()
    return ServerGroup(*row)


async def delete(tx: Tx, group: ServerGroup) -> None:
    """With its counters; its members are free from now on. The caller has locked it."""
    await tx.execute(sa.update(instances).where(instances.c.server_group == group.uuid).values(server_group=None))
    await tx.execute(sa.delete(instance_group_hosts).where(instance_group_hosts.c.group_id == group.id))
    await tx.execute(sa.delete(instance_groups).where(instance_groups.c.id == group.id))


async def hosts(tx: Tx, group_id: int) -> dict[str, int]:
    """Hosts on which members have a claim, with how many."""
    c = instance_group_hosts.c
    query = sa.select(c.host, c.servers).where(c.group_id == group_id, c.servers > 0)
    return {row.host: row.servers for row in await tx.execute(query)}
