"""Rows of quotas: limits set, and what is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.tables import instance_groups, instances, quota_classes, quota_usages, quotas


@dataclass(frozen=True, slots=True)
class Usage:
    """`ram` in MiB."""

    instances: int = 0
    cores: int = 0
    ram: int = 0


_NAMES = ("instances", "cores", "ram")
_USED = (quota_usages.c.instances, quota_usages.c.cores, quota_usages.c.ram)
_USAGE = sa.select(*_USED).where(quota_usages.c.project_id == sa.bindparam("project_id"))
_LOCK = _USAGE.with_for_update()
_GROUPS = (
    sa.select(sa.func.count())
    .where(instance_groups.c.project_id == sa.bindparam("project_id"))
    .select_from(instance_groups)
    .scalar_subquery()
)
_USAGE_WITH_GROUPS = _USAGE.add_columns(_GROUPS.label("server_groups"))
# The rows that are counted, whose sum `quota_usages` has to be.
COUNTS = (instances.c.deleted == 0, instances.c.vm_state != "soft-delete")
_SUMS = (
    sa.func.count(),
    sa.func.coalesce(sa.func.sum(instances.c.vcpus), 0),
    sa.func.coalesce(sa.func.sum(instances.c.memory_mb), 0),
)


async def usage(tx: Tx, project_id: str) -> Usage:
    row = (await tx.execute(_USAGE, {"project_id": project_id})).first()
    return Usage(*row) if row else Usage()


async def usage_with_groups(tx: Tx, project_id: str) -> tuple[Usage, int]:
    """The same, and how many server groups there are. A project that has one has a row of usage, too."""
    row = (await tx.execute(_USAGE_WITH_GROUPS, {"project_id": project_id})).first()
    return (Usage(*row[:3]), int(row[3])) if row else (Usage(), 0)


async def sums(tx: Tx, project_id: str, user_id: str | None = None) -> Usage:
    """What the project's servers, or those of one user in it, add up to.

    Exact while the caller has the project's row locked: whatever makes or deletes a server changes it first.
    """
    query = sa.select(*_SUMS).where(instances.c.project_id == project_id, *COUNTS)
    if user_id is not None:
        query = query.where(instances.c.user_id == user_id)
    count, cores, ram = (await tx.execute(query)).one()
    return Usage(int(count), int(cores), int(ram))


async def lock(tx: Tx, project_id: str) -> None:
    """Hold the project's row until the end of the transaction, so that what is counted cannot grow meanwhile."""
    if (await tx.execute(_LOCK, {"project_id": project_id})).first() is None:
        await insert_if_missing(tx, quota_usages, {"project_id": project_id})
        await tx.execute(_LOCK, {"project_id": project_id})


async def set_usage(tx: Tx, project_id: str, used: Usage) -> None:
    values = {"instances": used.instances, "cores": used.cores, "ram": used.ram}
    await tx.execute(sa.update(quota_usages).where(quota_usages.c.project_id == project_id).values(values))


async def drifted(tx: Tx) -> list[str]:
    """Projects whose row is not the sum of their servers, as far as one look without locks can tell."""
    c = instances.c
    added = sa.select(c.project_id, *(column.label(name) for column, name in zip(_SUMS, _NAMES, strict=True)))
    found = {row[0]: Usage(*map(int, row[1:])) for row in await tx.execute(added.where(*COUNTS).group_by(c.project_id))}
    kept = {row[0]: Usage(*row[1:]) for row in await tx.execute(sa.select(quota_usages.c.project_id, *_USED))}
    return sorted(project for project in {*found, *kept} if found.get(project, Usage()) != kept.get(project, Usage()))


async def user_limits(tx: Tx, project_id: str) -> dict[str, int]:
    """By resource, the sum of what the project's users have been given for themselves."""
    c = quotas.c
    query = sa.select(c.resource, sa.func.sum(c.hard_limit)).where(c.project_id == project_id, c.user_id != "")
    return {row[0]: int(row[1]) for row in await tx.execute(query.group_by(c.resource))}


async def set_limit(tx: Tx, project_id: str, user_id: str, resource: str, limit: int) -> None:
    """`user_id` is empty for the whole project's. The caller has locked the project."""
    key = {"project_id": project_id, "user_id": user_id, "resource": resource}
    await insert_if_missing(tx, quotas, key | {"hard_limit": limit})
    c = quotas.c
    same = (c.project_id == project_id, c.user_id == user_id, c.resource == resource)
    await tx.execute(sa.update(quotas).where(*same).values(hard_limit=limit))


async def delete_limits(tx: Tx, project_id: str, user_id: str | None = None) -> None:
    """Of one user in the project; without one, of the project and all its users."""
    statement = sa.delete(quotas).where(quotas.c.project_id == project_id)
    if user_id is not None:
        statement = statement.where(quotas.c.user_id == user_id)
    await tx.execute(statement)


async def class_limits(tx: Tx, name: str) -> dict[str, int]:
    c = quota_classes.c
    rows = await tx.execute(sa.select(c.resource, c.hard_limit).where(c.class_name == name))
    return {row[0]: row[1] for row in rows}


async def set_class_limits(tx: Tx, name: str, limits: Mapping[str, int]) -> None:
    c = quota_classes.c
    for resource, limit in limits.items():
        await insert_if_missing(tx, quota_classes, {"class_name": name, "resource": resource, "hard_limit": limit})
        same = (c.class_name == name, c.resource == resource)
        await tx.execute(sa.update(quota_classes).where(*same).values(hard_limit=limit))
