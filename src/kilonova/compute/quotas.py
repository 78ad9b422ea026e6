"""Limits of projects, of their users and of classes, and what is used of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from kilonova.compute.quota_usage import defaults_of, read_limits
from kilonova.db import quotas as rows
from kilonova.db import server_groups
from kilonova.db.engine import Tx
from kilonova.db.quotas import Usage
from kilonova.errors import Invalid
from kilonova.runtime import Runtime

_OF_PROJECTS = ("fixed_ips", "floating_ips")
"""Limits that are the project's even when they are set for a user."""


@dataclass(frozen=True, slots=True)
class ProjectQuotas:
    """`limits` by resource, names as in `[quota]`; -1 is unlimited."""

    limits: dict[str, int]
    used: Usage
    server_groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """`limit`: -1 is unlimited."""

    limit: int
    in_use: int


async def of_project(rt: Runtime, project_id: str) -> ProjectQuotas:
    async def work(tx: Tx) -> ProjectQuotas:
        limits = await read_limits(tx, project_id, "", rt.settings.quota)
        return ProjectQuotas(limits.project, *await rows.usage_with_groups(tx, project_id))

    return await rt.db.read(work)


async def lock_project(tx: Tx, project_id: str) -> None:
    """Serialise what is counted by looking, as key pairs are."""
    await rows.lock(tx, project_id)


async def find(rt: Runtime, project_id: str, user_id: str | None) -> dict[str, Quota]:
    """By resource, of a project or of a user in it."""
    return await rt.db.read(lambda tx: _find(rt, tx, project_id, user_id))


async def _find(rt: Runtime, tx: Tx, project_id: str, user_id: str | None) -> dict[str, Quota]:
    limits = (await read_limits(tx, project_id, user_id or "", rt.settings.quota)).of_user
    if user_id is None:
        used, groups = await rows.usage_with_groups(tx, project_id)
    else:
        used, groups = await rows.sums(tx, project_id, user_id), await server_groups.count(tx, project_id, user_id)
    counts = asdict(used) | {"server_groups": groups}
    return {name: Quota(limit=limit, in_use=counts.get(name, 0)) for name, limit in limits.items()}


async def update(
    rt: Runtime, project_id: str, user_id: str | None, wanted: Mapping[str, int], *, force: bool
) -> dict[str, Quota]:
    """Set limits. Raises Invalid for one below what is used or above what is left, unless `force`."""

    async def work(tx: Tx) -> dict[str, Quota]:
        await rows.lock(tx, project_id)
        if not force:
            await _check(rt, tx, project_id, user_id, wanted)
        for name, limit in wanted.items():
            owner = "" if user_id is None or name in _OF_PROJECTS else user_id
            await rows.set_limit(tx, project_id, owner, name, limit)
        return await _find(rt, tx, project_id, user_id)

    return await rt.db.write(work)


async def _check(rt: Runtime, tx: Tx, project_id: str, user_id: str | None, wanted: Mapping[str, int]) -> None:
    found = await _find(rt, tx, project_id, user_id)
    limits = await read_limits(tx, project_id, user_id or "", rt.settings.quota)
    given = await rows.user_limits(tx, project_id)
    for name, limit in wanted.items():
        least, most = found[name].in_use, -1
        left = limits.project[name] - given.get(name, 0)
        if user_id is not None:
            own = limits.own.get(name, 0)
            most = -1 if left < 0 or own < 0 else left + own
        elif limits.project[name] >= 0 and left >= 0:
            least = max(least, given.get(name, 0))
        if 0 <= limit < least:
            raise Invalid(
                f"Quota limit {limit} for {name} must be greater than or equal to already used and reserved {least}."
            )
        if most >= 0 and not 0 <= limit <= most:
            raise Invalid(f"Quota limit {limit} for {name} must be less than or equal to {most}.")


async def delete(rt: Runtime, project_id: str, user_id: str | None) -> None:
    """Back to the defaults: a user's own limits, or the project's with those of all its users."""

    async def work(tx: Tx) -> None:
        await rows.delete_limits(tx, project_id, user_id)

    await rt.db.write(work)


def _of_class(rt: Runtime, limits: Mapping[str, int]) -> dict[str, int]:
    return defaults_of(rt.settings.quota) | dict(limits)


async def defaults(rt: Runtime) -> dict[str, int]:
    """What a project has that has nothing of its own."""
    return await find_class(rt, "default")


async def find_class(rt: Runtime, name: str) -> dict[str, int]:
    return _of_class(rt, await rt.db.read(lambda tx: rows.class_limits(tx, name)))


async def update_class(rt: Runtime, name: str, wanted: Mapping[str, int]) -> dict[str, int]:
    """Those of the class `default` count for every project that has none of its own; others for nobody."""

    async def work(tx: Tx) -> dict[str, int]:
        await rows.set_class_limits(tx, name, wanted)
        return await rows.class_limits(tx, name)

    return _of_class(rt, await rt.db.write(work))


async def recount(rt: Runtime, project_id: str) -> bool:
    """Make the project's usage what its servers add up to; returns whether it was not.

    While its row is held, nobody makes or deletes a server of the project.
    """

    async def work(tx: Tx) -> bool:
        await rows.lock(tx, project_id)
        used = await rows.sums(tx, project_id)
        if used == await rows.usage(tx, project_id):
            return False
        await rows.set_usage(tx, project_id, used)
        return True

    return await rt.db.write(work)
