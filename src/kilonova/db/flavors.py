"""Rows of flavors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import instance_type_projects, instance_types


@dataclass(frozen=True, slots=True)
class Flavor:
    """One flavor; the fields are the columns of `instance_types`, in their order. Memory in MiB, disks in GiB."""

    id: int
    flavorid: str
    name: str
    description: str | None
    vcpus: int
    memory_mb: int
    root_gb: int
    ephemeral_gb: int
    swap_mb: int
    rxtx_factor: float
    disabled: bool
    is_public: bool
    extra_specs: dict[str, str]
    generation: int
    created_at: dt.datetime
    updated_at: dt.datetime | None


def from_row(row: Sequence[Any]) -> Flavor:
    return Flavor(*row)


async def get(tx: Tx, flavorid: str, *, project_id: str | None = None) -> Flavor | None:
    """The flavor, or None; with `project_id` only if it is public or that project has access."""
    query = sa.select(instance_types).where(instance_types.c.flavorid == flavorid)
    if project_id is not None:
        access = sa.exists().where(
            instance_type_projects.c.instance_type_id == instance_types.c.id,
            instance_type_projects.c.project_id == project_id,
        )
        query = query.where(sa.or_(instance_types.c.is_public, access))
    row = (await tx.execute(query)).first()
    return from_row(row) if row else None
