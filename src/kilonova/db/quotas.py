"""Rows of quotas: what a project uses."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.tables import quota_usages


@dataclass(frozen=True, slots=True)
class Usage:
    """`ram` in MiB."""

    instances: int = 0
    cores: int = 0
    ram: int = 0


_USAGE = sa.select(quota_usages.c.instances, quota_usages.c.cores, quota_usages.c.ram).where(
    quota_usages.c.project_id == sa.bindparam("project_id")
)


async def usage(tx: Tx, project_id: str) -> Usage:
    row = (await tx.execute(_USAGE, {"project_id": project_id})).first()
    return Usage(*row) if row else Usage()


async def lock(tx: Tx, project_id: str) -> None:
    """Hold the project's row until the end of the transaction, so that what is counted cannot grow meanwhile."""
    await insert_if_missing(tx, quota_usages, {"project_id": project_id})
    query = sa.select(quota_usages.c.project_id).where(quota_usages.c.project_id == project_id).with_for_update()
    await tx.execute(query)
