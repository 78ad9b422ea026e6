"""Rows of flavors."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import instance_type_projects, instance_types
from kilonova.db.types import DateTime


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


# Statements are built once: to build one costs more than to run it.
_ACCESSIBLE = sa.or_(
    instance_types.c.is_public,
    sa.exists().where(
        instance_type_projects.c.instance_type_id == instance_types.c.id,
        instance_type_projects.c.project_id == sa.bindparam("project_id"),
    ),
)
_GET = sa.select(instance_types).where(instance_types.c.flavorid == sa.bindparam("flavorid"))
_GET_ACCESSIBLE = _GET.where(_ACCESSIBLE)


async def get(tx: Tx, flavorid: str, *, project_id: str | None = None) -> Flavor | None:
    """The flavor, or None; with `project_id` only if it is public or that project has access."""
    if project_id is None:
        result = await tx.execute(_GET, {"flavorid": flavorid})
    else:
        result = await tx.execute(_GET_ACCESSIBLE, {"flavorid": flavorid, "project_id": project_id})
    row = result.first()
    return from_row(row) if row else None


_NEVER = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - naive UTC, as the database has it

SORT_KEYS = {
    "created_at": instance_types.c.created_at,
    "description": sa.func.coalesce(instance_types.c.description, ""),
    "disabled": instance_types.c.disabled,
    "ephemeral_gb": instance_types.c.ephemeral_gb,
    "flavorid": instance_types.c.flavorid,
    "id": instance_types.c.id,
    "is_public": instance_types.c.is_public,
    "memory_mb": instance_types.c.memory_mb,
    "name": instance_types.c.name,
    "root_gb": instance_types.c.root_gb,
    "rxtx_factor": instance_types.c.rxtx_factor,
    "swap": instance_types.c.swap_mb,
    "updated_at": sa.func.coalesce(instance_types.c.updated_at, sa.literal(_NEVER, DateTime)),
    "vcpu_weight": instance_types.c.id * 0,
    "vcpus": instance_types.c.vcpus,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`visible_to`: the project that asks, or None for an administrator, who sees all.

    `public`: True for the public ones and those that `project_id` has access to, False for the private
    ones, None for both. `name` is a regular expression. Memory in MiB, disk in GiB.
    """

    project_id: str
    visible_to: str | None
    public: bool | None = True
    enabled_only: bool = False
    min_memory_mb: int | None = None
    min_root_gb: int | None = None
    name: str | None = None


class MarkerNotFound(Exception):
    pass


@functools.lru_cache(maxsize=512)
def _page(
    names: frozenset[str], public: bool | None, sort_key: str, descending: bool
) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """The statements for a marker and for a page; `names` are the parameters that restrict it."""
    c = instance_types.c
    visible = [_ACCESSIBLE] if "visible" in names else []
    conditions: list[sa.ColumnElement[bool]] = list(visible)
    if public is True and not visible:
        conditions.append(_ACCESSIBLE)
    elif public is False:
        conditions.append(sa.not_(c.is_public))
    if "enabled" in names:
        conditions.append(sa.not_(c.disabled))
    if "min_memory_mb" in names:
        conditions.append(c.memory_mb >= sa.bindparam("min_memory_mb"))
    if "min_root_gb" in names:
        conditions.append(c.root_gb >= sa.bindparam("min_root_gb"))
    if "name" in names:
        conditions.append(c.name.regexp_match(sa.bindparam("name", type_=sa.String)))
    key = SORT_KEYS[sort_key]
    marker = sa.select(key.label("marker_value"), c.id).where(c.flavorid == sa.bindparam("marker"), *visible)
    if "marker" in names:
        value: sa.ColumnElement[Any] = sa.bindparam("marker_value", type_=key.type)
        row_id: sa.ColumnElement[int] = sa.bindparam("marker_id")
        beyond = (key < value, c.id < row_id) if descending else (key > value, c.id > row_id)
        conditions.append(sa.or_(beyond[0], sa.and_(key == value, beyond[1])))
    order = (key.desc(), c.id.desc()) if descending else (key.asc(), c.id.asc())
    page = sa.select(instance_types).where(*conditions).order_by(*order).limit(sa.bindparam("limit"))
    return marker, page


async def find(
    tx: Tx, wanted: Filter, *, sort_key: str, descending: bool, limit: int, marker: str | None
) -> list[Flavor]:
    """One page of flavors, after the one whose flavorid is `marker`. Raises MarkerNotFound."""
    given: dict[str, Any] = {
        "visible": wanted.visible_to,
        "enabled": wanted.enabled_only or None,
        "min_memory_mb": wanted.min_memory_mb,
        "min_root_gb": wanted.min_root_gb,
        "name": wanted.name,
        "marker": marker,
    }
    names = frozenset(name for name, value in given.items() if value is not None)
    find_marker, page = _page(names, wanted.public, sort_key, descending)
    values = {name: given[name] for name in names} | {"limit": limit, "project_id": wanted.project_id}
    if marker is not None:
        found = (await tx.execute(find_marker, values)).first()
        if found is None:
            raise MarkerNotFound
        values["marker_value"], values["marker_id"] = found
    return [from_row(row) for row in await tx.execute(page, values)]


async def find_same(tx: Tx, flavorid: str, name: str) -> Flavor | None:
    """A flavor that has this name, or else this flavorid."""
    query = (
        sa.select(instance_types)
        .where(sa.or_(instance_types.c.flavorid == flavorid, instance_types.c.name == name))
        .order_by(sa.case((instance_types.c.name == name, 0), else_=1))
    )
    row = (await tx.execute(query)).first()
    return from_row(row) if row else None


async def insert(tx: Tx, values: dict[str, Any]) -> None:
    await tx.execute(sa.insert(instance_types).values(values))


async def update(tx: Tx, flavor: Flavor, **values: Any) -> bool:
    """Change a flavor that nobody has changed since it was read; False when somebody has."""
    statement = sa.update(instance_types).where(
        instance_types.c.id == flavor.id, instance_types.c.generation == flavor.generation
    )
    return bool((await tx.execute(statement.values(generation=flavor.generation + 1, **values))).rowcount)


async def delete(tx: Tx, flavor_id: int) -> None:
    """Remove the row, and who had access to it. Servers keep their own copy of the flavor."""
    await tx.execute(sa.delete(instance_type_projects).where(instance_type_projects.c.instance_type_id == flavor_id))
    await tx.execute(sa.delete(instance_types).where(instance_types.c.id == flavor_id))


async def projects(tx: Tx, flavor_id: int) -> list[str]:
    """The projects that have access to a private flavor."""
    query = sa.select(instance_type_projects.c.project_id).where(instance_type_projects.c.instance_type_id == flavor_id)
    return [row[0] for row in await tx.execute(query.order_by(instance_type_projects.c.project_id))]


async def add_project(tx: Tx, flavor_id: int, project_id: str) -> bool:
    """Give access; False when the project has it already."""
    exists = sa.select(sa.literal(1)).where(
        instance_type_projects.c.instance_type_id == flavor_id, instance_type_projects.c.project_id == project_id
    )
    if (await tx.execute(exists)).first():
        return False
    await tx.execute(sa.insert(instance_type_projects).values(instance_type_id=flavor_id, project_id=project_id))
    return True


async def remove_project(tx: Tx, flavor_id: int, project_id: str) -> bool:
    """Take access away; False when the project had none."""
    statement = sa.delete(instance_type_projects).where(
        instance_type_projects.c.instance_type_id == flavor_id, instance_type_projects.c.project_id == project_id
    )
    return bool((await tx.execute(statement)).rowcount)
