"""Services and the hosts they stand for: enabling, disabling, forcing down, deleting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from kilonova.db import aggregates
from kilonova.db import hosts as rows
from kilonova.db.engine import Tx
from kilonova.db.hosts import COMPUTE, Service
from kilonova.errors import Conflict, Invalid, NotFound
from kilonova.runtime import Runtime


async def list_services(rt: Runtime, *, host: str | None = None, binary: str | None = None) -> list[Service]:
    async def work(tx: Tx) -> list[Service]:
        return await rows.find_services(tx, service_down_time=rt.settings.service_down_time, host=host, binary=binary)

    return await rt.db.read(work)


def zone_of(rt: Runtime, service: Service) -> str:
    """Compute services stand in the zone of their host, all others in the internal one."""
    if service.binary != COMPUTE:
        return rt.settings.internal_service_availability_zone
    return service.availability_zone or rt.settings.default_availability_zone


async def update_service(
    rt: Runtime,
    identity: sa.ColumnElement[bool],
    not_found: NotFound,
    change: Callable[[], dict[str, Any]],
) -> Service:
    """Change `disabled`, `disabled_reason` or `forced_down` of a compute service to what `change` says.

    Raises `not_found`, and Invalid for a service of another kind.
    """

    async def work(tx: Tx) -> Service:
        down = rt.settings.service_down_time
        service = await rows.get_service(tx, identity, service_down_time=down)
        if service is None:
            raise not_found
        require_compute(service.binary)
        await rows.update_service(tx, service.id, **change(), updated_at=rt.world.now())
        changed = await rows.get_service(tx, rows.service_row(service.id), service_down_time=down)
        assert changed is not None
        return changed

    return await rt.db.write(work)


def require_compute(binary: str) -> None:
    if binary != COMPUTE:
        raise Invalid(f"Updating a {binary} service is not supported. Only nova-compute services can be updated.")


async def delete_service(rt: Runtime, identity: sa.ColumnElement[bool], not_found: NotFound) -> None:
    """Forget a service, and with a compute service its hypervisors and its places in aggregates.

    Raises Conflict while it hosts servers.
    """

    async def work(tx: Tx) -> None:
        service = await rows.get_service(tx, identity, service_down_time=rt.settings.service_down_time)
        if service is None:
            raise not_found
        if service.binary == COMPUTE and await rows.count_servers(tx, service.host):
            raise Conflict(
                "Unable to delete compute service that is hosting instances. Migrate or delete the instances first."
            )
        if service.binary == COMPUTE:
            await aggregates.remove_host_everywhere(tx, service.host)
        await rows.delete_service(tx, service)

    await rt.db.write(work)
