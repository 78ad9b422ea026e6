"""A project's use of instances, cores and memory: one row, changed in the transaction that changes its cause."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from kilonova.db import quotas as quota_rows
from kilonova.db.dialect import insert_if_missing
from kilonova.db.engine import Tx
from kilonova.db.tables import quota_classes, quota_usages, quotas
from kilonova.errors import OverQuota
from kilonova.settings import QuotaDefaults

COUNTED = ("instances", "cores", "ram")
_c = quota_usages.c


@dataclass(frozen=True, slots=True)
class Amount:
    """`ram` in MiB."""

    instances: int
    cores: int
    ram: int


PROXIED = ("fixed_ips", "floating_ips", "security_groups", "security_group_rules")
"""Resources of Networking: their limits are kept and shown for old clients, and mean nothing."""
RESOURCES = (*QuotaDefaults.__dataclass_fields__, *PROXIED)

_LIMITS = sa.union_all(
    sa.select(quotas.c.resource, quotas.c.hard_limit, quotas.c.user_id, sa.literal(1).label("rank")).where(
        quotas.c.project_id == sa.bindparam("my_project"), quotas.c.user_id.in_(["", sa.bindparam("my_user")])
    ),
    sa.select(
        quota_classes.c.resource, quota_classes.c.hard_limit, sa.literal("").label("user_id"), sa.literal(0)
    ).where(quota_classes.c.class_name == "default"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """By resource; -1 is unlimited. `project`: of all its users together; `own`: the user's, beside them."""

    project: dict[str, int]
    own: dict[str, int]

    @property
    def of_user(self) -> dict[str, int]:
        """What counts for things that each user has for themselves."""
        return self.project | self.own


def defaults_of(defaults: QuotaDefaults) -> dict[str, int]:
    """The configured limits of all resources."""
    return {name: int(getattr(defaults, name, -1)) for name in RESOURCES}


async def read_limits(tx: Tx, project_id: str, user_id: str, defaults: QuotaDefaults) -> Limits:
    """The project's limits, else those of the class `default`, else the configured ones; and the user's own."""
    project = defaults_of(defaults)
    own: dict[str, int] = {}
    rows = await tx.execute(_LIMITS, {"my_project": project_id, "my_user": user_id})
    for row in sorted(rows, key=lambda row: int(row.rank)):
        (own if row.user_id else project)[row.resource] = row.hard_limit
    return Limits(project=project, own=own)


async def take_for(tx: Tx, project_id: str, user_id: str, amount: Amount, limit: Limits) -> None:
    """Count `amount` in for a user of the project; raises OverQuota when a limit of either would be passed."""
    if any(limit.own.get(name, -1) >= 0 for name in COUNTED):
        await quota_rows.lock(tx, project_id)
        used = await quota_rows.sums(tx, project_id, user_id)
        _check(limit.own, asdict(used), asdict(amount))
    await take(tx, project_id, amount, limit.project)


async def take(tx: Tx, project_id: str, amount: Amount, limit: dict[str, int]) -> None:
    """Count `amount` in; raises OverQuota when a limit would be passed."""
    add = asdict(amount)
    limited = tuple(name for name in COUNTED if limit[name] >= 0)
    values = {"my_project": project_id, **_named("add", add), **_named("most", {name: limit[name] for name in limited})}
    if (await tx.execute(_take(limited), values)).rowcount:
        return
    await insert_if_missing(tx, quota_usages, {"project_id": project_id})
    if (await tx.execute(_take(limited), values)).rowcount:
        return
    used = (await tx.execute(sa.select(quota_usages).where(_c.project_id == project_id))).one()._mapping
    _check(limit, {name: used[name] for name in COUNTED}, add)


async def room(tx: Tx, project_id: str, user_id: str, each: Amount, limit: Limits) -> int | None:
    """How many of `each` a user of the project may still have, nobody else changing that before the transaction ends.

    None: there is no limit.
    """
    await quota_rows.lock(tx, project_id)
    used = [(limit.project, await quota_rows.usage(tx, project_id))]
    if any(limit.own.get(name, -1) >= 0 for name in COUNTED):
        used.append((limit.own, await quota_rows.sums(tx, project_id, user_id)))
    fits = [
        max(0, of[name] - getattr(has, name)) // getattr(each, name)
        for of, has in used
        for name in COUNTED
        if of.get(name, -1) >= 0 and getattr(each, name)
    ]
    return min(fits) if fits else None


def _check(limit: Mapping[str, int], used: Mapping[str, int], add: Mapping[str, int]) -> None:
    over = [name for name in COUNTED if 0 <= limit.get(name, -1) < used[name] + add[name]]
    if not over:
        return
    names = ", ".join(over)
    asked = ", ".join(str(add[name]) for name in over)
    has = ", ".join(str(used[name]) for name in over)
    allowed = ", ".join(str(limit[name]) for name in over)
    raise OverQuota(f"Quota exceeded for {names}: Requested {asked}, but already used {has} of {allowed} {names}")


async def give_back(tx: Tx, project_id: str, amount: Amount) -> None:
    await count(tx, project_id, Amount(-amount.instances, -amount.cores, -amount.ram))


async def count(tx: Tx, project_id: str, amount: Amount) -> None:
    """Count `amount` in whatever the limits are; the project has a row already."""
    await tx.execute(_take(()), {"my_project": project_id, **_named("add", asdict(amount))})


def _named(prefix: str, values: Mapping[str, int]) -> dict[str, int]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


# Built once for each set of limits that count: making a statement takes longer than running it.
@functools.cache
def _take(limited: tuple[str, ...]) -> sa.Update:
    """Adds `add_*` where that passes none of `most_*`."""

    def sum_of(name: str) -> sa.ColumnElement[int]:
        return _c[name] + sa.bindparam(f"add_{name}", type_=sa.BigInteger)

    guards = [sum_of(name) <= sa.bindparam(f"most_{name}", type_=sa.BigInteger) for name in limited]
    return (
        sa.update(quota_usages)
        .where(_c.project_id == sa.bindparam("my_project"), *guards)
        .values({name: sum_of(name) for name in COUNTED})
    )
