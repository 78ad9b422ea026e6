"""Aggregates, and the availability zones they make of their hosts.

A host is in one zone, and a server does not change its zone without moving: every change holds the hosts
that it concerns, on which nothing is claimed meanwhile, and is refused where servers would be moved by it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from kilonova.agent.driver import Secrets
from kilonova.bus.messages import CacheImages
from kilonova.context import RequestContext
from kilonova.db import aggregates as rows
from kilonova.db import hosts as host_rows
from kilonova.db.aggregates import ZONE, Aggregate
from kilonova.db.engine import Tx
from kilonova.db.hosts import COMPUTE
from kilonova.errors import Conflict, Invalid, NotFound, Transient
from kilonova.runtime import Runtime


def _missing(aggregate_id: int) -> NotFound:
    return NotFound(f"Aggregate {aggregate_id} could not be found.")


async def _get(tx: Tx, aggregate_id: int) -> Aggregate:
    found = await rows.get(tx, aggregate_id)
    if found is None:
        raise _missing(aggregate_id)
    return found


async def get(rt: Runtime, aggregate_id: int) -> Aggregate:
    """Raises NotFound."""
    return await rt.db.read(lambda tx: _get(tx, aggregate_id))


async def create(rt: Runtime, name: str, zone: str | None) -> Aggregate:
    """Raises Conflict when there is one of that name."""

    async def work(tx: Tx) -> Aggregate:
        if await rows.is_named(tx, name):
            raise Conflict(f"Aggregate {name} already exists.")
        return await rows.insert(tx, rt.world.uuid(), name, {ZONE: zone} if zone else {}, rt.world.now())

    return await rt.db.write(work)


async def update(
    rt: Runtime, aggregate_id: int, *, name: str | None = None, metadata: Mapping[str, str | None]
) -> Aggregate:
    """Give it another name, set keys of its metadata, remove those that are None.

    Raises NotFound, Conflict for a name that another one has, Invalid when the zone cannot change.
    """

    async def work(tx: Tx) -> Aggregate:
        aggregate = await _locked(tx, aggregate_id)
        if name is not None and name != aggregate.name:
            if await rows.is_named(tx, name):
                raise Conflict(f"Aggregate {name} already exists.")
            await rows.update(tx, aggregate_id, name=name)
        if ZONE in metadata:
            await _check_new_zone(tx, aggregate, metadata[ZONE])
        if metadata:
            await rows.set_metadata(tx, aggregate_id, metadata)
            await rows.refresh_zones(tx, aggregate.hosts)
        await rows.update(tx, aggregate_id, updated_at=rt.world.now())
        return await _get(tx, aggregate_id)

    return await rt.db.write(work)


async def _locked(tx: Tx, aggregate_id: int) -> Aggregate:
    if not await rows.lock(tx, aggregate_id):
        raise _missing(aggregate_id)
    aggregate = await _get(tx, aggregate_id)
    if aggregate.hosts:
        await rows.hold_hosts(tx, aggregate.hosts)
    return aggregate


async def _check_new_zone(tx: Tx, aggregate: Aggregate, zone: str | None) -> None:
    def refused(reason: str) -> Invalid:
        return Invalid(f"Cannot change the availability zone of aggregate {aggregate.id}: {reason}.")

    if not zone:
        raise refused("its name must not be empty")
    if not aggregate.hosts:
        return
    others = await rows.zones(tx, aggregate.hosts, without=aggregate.id)
    conflicting = sorted(others - {zone})
    if conflicting:
        raise refused(f"one or more hosts are already in availability zone {', '.join(conflicting)}")
    if zone != aggregate.availability_zone and await host_rows.count_servers(tx, *aggregate.hosts):
        raise refused("one or more hosts have servers in this zone")


async def delete(rt: Runtime, aggregate_id: int) -> None:
    """Raises NotFound, and Invalid while it has hosts."""

    async def work(tx: Tx) -> None:
        if (await _locked(tx, aggregate_id)).hosts:
            raise Invalid(f"Cannot delete aggregate {aggregate_id}: it still has hosts.")
        await rows.delete(tx, aggregate_id)

    await rt.db.write(work)


async def add_host(rt: Runtime, aggregate_id: int, host: str) -> Aggregate:
    """Raises NotFound (also for a host without a compute service), Conflict when it cannot be in this one, too."""

    async def work(tx: Tx) -> Aggregate:
        if not await rows.lock(tx, aggregate_id):
            raise _missing(aggregate_id)
        if host not in await rows.hold_hosts(tx, [host]):
            raise NotFound(f"Compute host {host} could not be found.")
        aggregate = await _get(tx, aggregate_id)
        if host in aggregate.hosts:
            raise Conflict(f"Aggregate {aggregate_id} already has host {host}.")
        zone = aggregate.availability_zone
        if zone is not None:
            now = await rows.zones(tx, [host])
            if now - {zone}:
                raise Conflict(
                    f"Cannot add host {host} to aggregate {aggregate_id}: "
                    f"it is already in availability zone {', '.join(sorted(now))}."
                )
            if not now:
                await _check_no_servers(tx, host, f"join availability zone {zone}")
        await rows.add_host(tx, aggregate_id, host)
        await rows.refresh_zones(tx, [host])
        return await _get(tx, aggregate_id)

    return await rt.db.write(work)


async def remove_host(rt: Runtime, aggregate_id: int, host: str) -> Aggregate:
    """Raises NotFound, and Conflict when servers on the host would change their zone."""
    missing = NotFound(f"Cannot remove host {host} in aggregate {aggregate_id}")

    async def work(tx: Tx) -> Aggregate:
        if not await rows.lock(tx, aggregate_id) or host not in await rows.hold_hosts(tx, [host]):
            raise missing
        aggregate = await _get(tx, aggregate_id)
        zone = aggregate.availability_zone
        if zone is not None and zone not in await rows.zones(tx, [host], without=aggregate_id):
            await _check_no_servers(tx, host, f"leave availability zone {zone}")
        if not await rows.remove_host(tx, aggregate_id, host):
            raise missing
        await rows.refresh_zones(tx, [host])
        return await _get(tx, aggregate_id)

    return await rt.db.write(work)


async def _check_no_servers(tx: Tx, host: str, doing: str) -> None:
    count = await host_rows.count_servers(tx, host)
    if count:
        raise Conflict(
            f"Host {host} cannot {doing}: it has {count} server(s), and a server's zone changes only when it moves. "
            "Move them away first."
        )


async def cache_images(rt: Runtime, ctx: RequestContext, aggregate_id: int, image_ids: Sequence[str]) -> None:
    """Ask every host of the aggregate that is up to fetch the images; nobody waits for it.

    Raises NotFound, and Invalid for an image that cannot be had.
    """
    aggregate = await get(rt, aggregate_id)
    specs = []
    for image_id in image_ids:
        try:
            specs.append((await rt.images.get(image_id, project_id=ctx.project_id)).spec)
        except NotFound as error:
            raise Invalid(f"Image {image_id} could not be found.") from error
    down_time = rt.settings.service_down_time

    async def up(tx: Tx) -> list[str]:
        found = await host_rows.find_services(tx, service_down_time=down_time, binary=COMPUTE)
        return [service.host for service in found if service.up and service.host in aggregate.hosts]

    for host in await rt.db.read(up):
        message = CacheImages(images=specs, secrets=Secrets(image_token=await rt.image_token()))
        with contextlib.suppress(Transient):
            await rt.bus.send(f"agent.{host}", message)
