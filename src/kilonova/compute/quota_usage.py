"""A project's use of instances, cores and memory: one row, changed in the transaction that changes its cause."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.tables import quota_classes, quota_usages, quotas
from kilonova.errors import OverQuota
from kilonova.settings import QuotaDefaults

COUNTED = ("instances", "cores", "ram")


@dataclass(frozen=True, slots=True)
class Amount:
    """`ram` in MiB."""

    instances: int
    cores: int
    ram: int


_LIMITS = sa.union_all(
    sa.select(quotas.c.resource, quotas.c.hard_limit, sa.literal(1).label("rank")).where(
        quotas.c.project_id == sa.bindparam("my_project"), quotas.c.user_id == ""
    ),
    sa.select(quota_classes.c.resource, quota_classes.c.hard_limit, sa.literal(0).label("rank")).where(
        quota_classes.c.class_name == "default"
    ),
)


async def limits(tx: Tx, project_id: str, defaults: QuotaDefaults) -> dict[str, int]:
    """The project's limits, else those of the class `default`, else the configured ones; -1 is unlimited."""
    found = {name: int(getattr(defaults, name)) for name in QuotaDefaults.__dataclass_fields__}
    for row in sorted(await tx.execute(_LIMITS, {"my_project": project_id}), key=lambda row: int(row.rank)):
        found[row.resource] = row.hard_limit
    return found


async def take(tx: Tx, project_id: str, amount: Amount, limit: dict[str, int]) -> None:
    """Count `amount` in; raises OverQuota when a limit would be passed."""
    c = quota_usages.c
    add = {"instances": amount.instances, "cores": amount.cores, "ram": amount.ram}
    guards = [c[name] + add[name] <= limit[name] for name in COUNTED if limit[name] >= 0]
    statement = (
        sa.update(quota_usages)
        .where(c.project_id == project_id, *guards)
        .values({name: c[name] + add[name] for name in COUNTED})
    )
    if (await tx.execute(statement)).rowcount:
        return
    await insert_if_missing(tx, quota_usages, {"project_id": project_id})
    if (await tx.execute(statement)).rowcount:
        return
    used = (await tx.execute(sa.select(quota_usages).where(c.project_id == project_id))).one()._mapping
    over = [name for name in COUNTED if 0 <= limit[name] < used[name] + add[name]]
    names = ", ".join(over)
    asked = ", ".join(str(add[name]) for name in over)
    has = ", ".join(str(used[name]) for name in over)
    allowed = ", ".join(str(limit[name]) for name in over)
    raise OverQuota(f"Quota exceeded for {names}: Requested {asked}, but already used {has} of {allowed} {names}")


async def give_back(tx: Tx, project_id: str, amount: Amount) -> None:
    c = quota_usages.c
    await tx.execute(
        sa.update(quota_usages)
        .where(c.project_id == project_id)
        .values(instances=c.instances - amount.instances, cores=c.cores - amount.cores, ram=c.ram - amount.ram)
    )
