"""A project's limits, and what it uses of them."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.compute.quota_usage import limits
from kilonova.db import quotas as rows
from kilonova.db.engine import Tx
from kilonova.db.quotas import Usage
from kilonova.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ProjectQuotas:
    """`limits` by resource, names as in `[quota]`; -1 is unlimited."""

    limits: dict[str, int]
    used: Usage


async def of_project(rt: Runtime, project_id: str) -> ProjectQuotas:
    async def work(tx: Tx) -> ProjectQuotas:
        return ProjectQuotas(await limits(tx, project_id, rt.settings.quota), await rows.usage(tx, project_id))

    return await rt.db.read(work)


async def lock_project(tx: Tx, project_id: str) -> None:
    """Serialise what is counted by looking, as key pairs are."""
    await rows.lock(tx, project_id)
