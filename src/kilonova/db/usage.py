"""Servers by the time in which they ran."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import instances


class MarkerNotFound(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Used:
    """A server, deleted or not. Disk in GiB, memory in MiB, times UTC."""

    uuid: str
    project_id: str
    name: str
    flavor_name: str
    vcpus: int
    memory_mb: int
    local_gb: int
    vm_state: str
    launched_at: dt.datetime
    terminated_at: dt.datetime | None


async def servers(
    tx: Tx, start: dt.datetime, stop: dt.datetime, *, project_id: str | None, limit: int, marker: str | None
) -> list[Used]:
    """Those that were launched before `stop` and not ended before `start`, by project and UUID, after `marker`.

    Raises MarkerNotFound.
    """
    c = instances.c
    query = sa.select(
        c.uuid, c.project_id, c.display_name, c.flavor, c.vcpus, c.memory_mb, c.root_gb + c.ephemeral_gb, c.vm_state,
        c.launched_at, c.terminated_at,
    ).where(sa.or_(c.terminated_at.is_(None), c.terminated_at > start), c.launched_at < stop)  # fmt: skip
    if project_id is not None:
        query = query.where(c.project_id == project_id)
    if marker is not None:
        last = (await tx.execute(sa.select(c.project_id, c.uuid).where(c.uuid == marker))).first()
        if last is None:
            raise MarkerNotFound
        same = sa.and_(c.project_id == last.project_id, c.uuid > last.uuid)
        query = query.where(sa.or_(c.project_id > last.project_id, same))
    rows = await tx.execute(query.order_by(c.project_id, c.uuid).limit(limit))
    return [
        Used(uuid, project, name, str((flavor or {}).get("name", "")), *rest)
        for uuid, project, name, flavor, *rest in rows
    ]
