"""Deletion that can be taken back, and what becomes of guests that outlived their servers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from kilonova.agent.driver import PowerState
from kilonova.api.app import create_app
from kilonova.bus.messages import PowerReport
from kilonova.db import servers
from kilonova.db.tables import instances, quota_usages, services, tombstones
from kilonova.reconcile.reclaim import Reclaim
from kilonova.settings import ComputeSettings, QuotaDefaults
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud, make_cloud
from kilonova.testing.identity import StaticTokens
from tests.support import server_rows as rows

KEPT = ComputeSettings(reclaim_instance_interval=1e6, quota=QuotaDefaults(instances=2))


@contextlib.asynccontextmanager
async def cloud_with(directory: Path, settings: ComputeSettings) -> AsyncIterator[tuple[TestCloud, Client]]:
    async with make_cloud(directory, synchronous="OFF", settings=settings) as made:
        made.images.add(rows.IMAGE)
        await rows.add_flavor(made.rt.db)
        transport = httpx.ASGITransport(app=create_app(made.rt, StaticTokens()), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://compute.test:8774") as http:
            yield made, Client(http, made.rt)


async def wait_for(api: Client, server_id: str, *statuses: str) -> dict[str, Any]:
    for _ in range(2000):
        answer = await api("GET", f"/servers/{server_id}", version="2.104")
        if answer.status_code == 404:
            assert "gone" in statuses
            return {}
        server: dict[str, Any] = answer.json()["server"]
        if server["status"] in statuses and server["OS-EXT-STS:task_state"] is None:
            return server
        await asyncio.sleep(0.01)
    raise AssertionError(f"{server_id} is {server['status']}, not {statuses}")


async def boot(api: Client) -> str:
    wanted = {"server": {"name": "vm", "imageRef": rows.IMAGE, "flavorRef": "1", "networks": "none"}}
    made = await api("POST", "/servers", wanted, token="member", version="2.104")
    assert made.status_code == 202, made.text
    server_id: str = made.json()["server"]["id"]
    await wait_for(api, server_id, "ACTIVE")
    return server_id


async def act(api: Client, server_id: str, key: str, value: Any = None) -> int:
    path = f"/servers/{server_id}/action"
    return int((await api("POST", path, {key: value}, token="member", version="2.104")).status_code)


async def used(api: Client) -> int:
    row = (await api.rt.db.read(lambda tx: tx.execute(sa.select(quota_usages.c.instances)))).one()
    return int(row[0])


async def test_what_is_softly_deleted_is_off_hidden_and_free_of_quota_until_it_is_restored(tmp_path: Path) -> None:
    async with cloud_with(tmp_path, KEPT) as (made, api):
        server_id = await boot(api)
        assert (await api("DELETE", f"/servers/{server_id}", token="member")).status_code == 204
        server = await wait_for(api, server_id, "SOFT_DELETED")
        assert server["OS-EXT-STS:vm_state"] == "soft-delete"
        assert server["OS-EXT-STS:power_state"] == PowerState.SHUTDOWN
        assert await used(api) == 0
        guest = made.hosts["host-1"].driver._host.guests[server_id]
        assert (guest.power_state, guest.disks) == (PowerState.SHUTDOWN, True)
        assert (await api("GET", "/servers", token="member")).json()["servers"] == []
        (listed,) = (await api("GET", "/servers?status=SOFT_DELETED&deleted=true")).json()["servers"]
        assert listed["id"] == server_id
        for action in ("os-start", "os-stop", "pause", "suspend", "resume"):
            assert await act(api, server_id, action) == 409, action
        assert (await api("DELETE", f"/servers/{server_id}", token="member")).status_code == 204

        assert await act(api, server_id, "restore") == 202
        await wait_for(api, server_id, "ACTIVE")
        assert await used(api) == 1
        assert guest.power_state == PowerState.RUNNING
        assert await act(api, server_id, "restore") == 409


async def test_a_restore_over_quota_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with cloud_with(tmp_path, KEPT) as (_, api):
        kept = await boot(api)
        await api("DELETE", f"/servers/{kept}", token="member")
        await wait_for(api, kept, "SOFT_DELETED")
        for _ in range(2):
            await boot(api)
        assert await act(api, kept, "restore") == 403
        assert (await wait_for(api, kept, "SOFT_DELETED"))["OS-EXT-STS:vm_state"] == "soft-delete"
        assert await used(api) == 2


async def test_force_delete_and_reclaiming_end_it_for_good(tmp_path: Path) -> None:
    settings = dataclasses.replace(KEPT, reclaim_instance_interval=1000.0)
    async with cloud_with(tmp_path, settings) as (made, api):
        first, second = [await boot(api) for _ in range(2)]
        for server_id in (first, second):
            await api("DELETE", f"/servers/{server_id}", token="member")
            await wait_for(api, server_id, "SOFT_DELETED")
        assert await act(api, first, "forceDelete") == 202
        await wait_for(api, first, "gone")

        reclaim = Reclaim(made.rt)
        assert await reclaim.once() == 0
        earlier = sa.update(instances).where(instances.c.uuid == second)
        long_ago = made.rt.world.now().replace(year=2020)
        await made.rt.db.write(lambda tx: tx.execute(earlier.values(deleted_at=long_ago)))
        assert await reclaim.once() == 1
        await wait_for(api, second, "gone")
        assert made.hosts["host-1"].driver.left() == []
        assert await used(api) == 0


async def test_reset_state_makes_it_count_again(tmp_path: Path) -> None:
    async with cloud_with(tmp_path, KEPT) as (_, api):
        server_id = await boot(api)
        await api("DELETE", f"/servers/{server_id}", token="member")
        await wait_for(api, server_id, "SOFT_DELETED")
        body = {"os-resetState": {"state": "error"}}
        assert (await api("POST", f"/servers/{server_id}/action", body)).status_code == 202
        await wait_for(api, server_id, "ERROR")
        assert await used(api) == 1
        row = (await api.rt.db.read(lambda tx: tx.execute(sa.select(instances.c.deleted_at)))).one()
        assert row[0] is None


async def test_without_an_interval_deletion_is_for_good(tmp_path: Path) -> None:
    async with cloud_with(tmp_path, ComputeSettings()) as (_, api):
        server_id = await boot(api)
        await api("DELETE", f"/servers/{server_id}", token="member")
        await wait_for(api, server_id, "gone")
        assert await act(api, server_id, "restore") == 404


def guest_is(made: TestCloud, uuid: str, power_state: int | None) -> Callable[[], bool]:
    def holds() -> bool:
        guest = made.hosts["host-1"].driver._host.guests.get(uuid)
        return (guest.power_state if guest is not None and guest.defined else None) == power_state

    return holds


@pytest.mark.parametrize(
    ("action", "end"),
    [("noop", PowerState.RUNNING), ("log", PowerState.RUNNING), ("shutdown", PowerState.SHUTDOWN), ("reap", None)],
)
async def test_a_guest_that_outlived_its_server_is_treated_as_configured(
    action: str, end: int | None, tmp_path: Path
) -> None:
    settings = ComputeSettings(running_deleted_instance_action=action, running_deleted_instance_poll_interval=0.0)
    async with cloud_with(tmp_path, settings) as (made, api):
        server_id = await boot(api)
        gone = sa.update(instances).where(instances.c.uuid == server_id)
        long_ago = made.rt.world.now().replace(year=2020)
        # As when a database and a host do not come from the same time.
        values = {"deleted": instances.c.id, "deleted_at": long_ago, "vm_state": "deleted", "claimed": False}
        await made.rt.db.write(lambda tx: tx.execute(gone.values(**values)))
        query = sa.select(services.c.incarnation).where(services.c.binary == "nova-compute")
        incarnation = (await made.rt.db.read(lambda tx: tx.execute(query))).scalars().one()
        report = PowerReport(host="host-1", incarnation=incarnation, states={server_id: 1}, complete=True)
        await made.conductor.power_states.on_report(report)
        await made.conductor.tombstones.once()
        for _ in range(200):
            if guest_is(made, server_id, end)():
                break
            await asyncio.sleep(0.01)
        assert guest_is(made, server_id, end)()
        assert (await made.rt.db.read(lambda tx: tx.execute(sa.select(tombstones)))).all() == []


async def test_hosts_are_looked_at_no_more_often_than_configured(tmp_path: Path) -> None:
    settings = ComputeSettings(running_deleted_instance_action="log", running_deleted_instance_poll_interval=1000.0)
    async with cloud_with(tmp_path, settings) as (made, api):
        looked: list[str] = []

        async def note(host: str, server: Any, action: str) -> None:
            looked.append(server.uuid)

        watch = made.conductor.power_states.running_deleted
        watch._act = note  # type: ignore[method-assign]
        server_id = await boot(api)
        long_ago = made.rt.world.now().replace(year=2020)
        server = await made.rt.db.read(lambda tx: servers.get(tx, server_id))
        assert server is not None
        await watch.found("host-1", [dataclasses.replace(server, deleted_at=made.rt.world.now())])
        assert looked == []
        for _ in range(2):
            await watch.found("host-1", [dataclasses.replace(server, deleted_at=long_ago)])
        assert looked == [server_id]
