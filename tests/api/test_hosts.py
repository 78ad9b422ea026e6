"""Services, hypervisors, zones and limits over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import compute_nodes, quota_classes, quota_usages, quotas, services
from kilonova.db.types import database_seconds
from kilonova.testing.api import Client
from kilonova.testing.identity import OTHER_PROJECT, PROJECT
from tests.support import server_rows

UUIDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(10)]
NODES = [f"10000000-0000-0000-0000-00000000000{number}" for number in range(10)]


async def add_service(api: Client, number: int, host: str, binary: str = "nova-compute", **fields: Any) -> None:
    row = {
        "uuid": UUIDS[number],
        "host": host,
        "binary": binary,
        "last_seen": database_seconds(),
        "created_at": server_rows.MOMENT,
    }

    async def work(tx: Tx) -> None:
        await tx.execute(sa.insert(services).values(row | fields))

    await api.rt.db.write(work)


async def add_host(api: Client, number: int, **fields: Any) -> None:
    """A host named host-N, with its service and its node."""
    service = {name: fields.pop(name) for name in list(fields) if name in services.c}
    await add_service(api, number, f"host-{number}", **service)
    row = {
        "uuid": NODES[number], "service_id": number, "host": f"host-{number}",
        "hypervisor_hostname": f"host-{number}.example", "hypervisor_type": "QEMU", "hypervisor_version": 7002000,
        "vcpus": 8, "memory_mb": 8192, "local_gb": 100, "vcpus_max": 128, "memory_mb_max": 11520, "local_gb_max": 100,
        "vcpus_used": 2, "memory_mb_used": 1024, "local_gb_used": 10, "running_vms": 2, "disk_available_least": 50,
        "cpu_info": {"arch": "x86_64"}, "traits": [], "host_ip": "192.0.2.1", "uptime": " 10:00:00 up 1 day",
        "created_at": server_rows.MOMENT,
    }  # fmt: skip

    async def work(tx: Tx) -> None:
        await tx.execute(sa.insert(compute_nodes).values(row | fields))

    await api.rt.db.write(work)


async def get(api: Client, path: str, version: str | None = None, *, status: int = 200) -> Any:
    answer = await api("GET", path, version=version)
    assert answer.status_code == status, answer.text
    return answer.json()


# Services


async def test_services_show_what_their_version_has(api: Client) -> None:
    await add_service(api, 1, "a", "nova-conductor")
    await add_host(api, 2, disabled=True, disabled_reason="repair")
    conductor, compute = (await get(api, "/os-services"))["services"]
    assert conductor.pop("updated_at")
    assert compute.pop("updated_at")
    assert conductor == {
        "binary": "nova-conductor", "host": "a", "id": 1, "zone": "internal", "status": "enabled", "state": "up",
        "disabled_reason": None,
    }  # fmt: skip
    assert (compute["zone"], compute["status"], compute["disabled_reason"]) == ("nova", "disabled", "repair")
    assert "forced_down" in (await get(api, "/os-services", "2.11"))["services"][0]
    assert (await get(api, "/os-services", "2.53"))["services"][0]["id"] == UUIDS[1]
    assert [s["host"] for s in (await get(api, "/os-services?binary=nova-compute"))["services"]] == ["host-2"]
    assert [s["host"] for s in (await get(api, "/os-services?host=a"))["services"]] == ["a"]


async def test_a_host_is_up_by_the_databases_clock_and_unless_forced_down(api: Client) -> None:
    await add_host(api, 1)
    await add_host(api, 2, last_seen=database_seconds() - api.rt.settings.service_down_time - 1)
    await add_host(api, 3, last_seen=0)
    await add_host(api, 4, forced_down=True)
    states = {s["host"]: s["state"] for s in (await get(api, "/os-services"))["services"]}
    assert states == {"host-1": "up", "host-2": "down", "host-3": "down", "host-4": "down"}
    nodes = {h["hypervisor_hostname"]: h["state"] for h in (await get(api, "/os-hypervisors"))["hypervisors"]}
    assert set(nodes.values()) == {"up", "down"}
    assert nodes["host-1.example"] == "up"


async def test_a_service_is_switched_by_name_before_2_53(api: Client) -> None:
    await add_host(api, 1)
    target = {"host": "host-1", "binary": "nova-compute"}
    disabled = await api("PUT", "/os-services/disable-log-reason", target | {"disabled_reason": "why"})
    assert disabled.json() == {"service": target | {"status": "disabled", "disabled_reason": "why"}}
    assert (await get(api, "/os-services"))["services"][0]["disabled_reason"] == "why"
    assert (await api("PUT", "/os-services/enable", target)).json() == {"service": target | {"status": "enabled"}}
    forced = await api("PUT", "/os-services/force-down", target | {"forced_down": "true"}, version="2.11")
    assert forced.json() == {"service": target | {"forced_down": True}}
    assert (await get(api, "/os-services"))["services"][0]["state"] == "down"
    assert (await api("PUT", "/os-services/force-down", target, version="2.10")).status_code == 404
    assert (await api("PUT", "/os-services/disable-log-reason", target)).status_code == 400
    assert (await api("PUT", "/os-services/disable", target | {"host": "nope"})).status_code == 404
    assert (await api("PUT", "/os-services/disable", target | {"binary": "nova-conductor"})).status_code == 400
    assert (await api("PUT", "/os-services/explode", target)).status_code == 404


async def test_a_service_is_switched_by_its_uuid_from_2_53(api: Client) -> None:
    await add_host(api, 1)
    await add_service(api, 2, "c", "nova-conductor")
    path = f"/os-services/{UUIDS[1]}"
    body: dict[str, Any] = {"status": "disabled", "disabled_reason": "why", "forced_down": True}
    shown = (await api("PUT", path, body, version="2.53")).json()["service"]
    assert (shown["id"], shown["status"], shown["disabled_reason"], shown["forced_down"], shown["state"]) == (
        UUIDS[1], "disabled", "why", True, "down",
    )  # fmt: skip
    shown = (await api("PUT", path, {"status": "enabled", "forced_down": False}, version="2.53")).json()["service"]
    assert (shown["status"], shown["disabled_reason"], shown["state"]) == ("enabled", None, "up")
    for body in ({}, {"disabled_reason": "x"}, {"status": "enabled", "disabled_reason": "x"}, {"host": "host-1"}):
        assert (await api("PUT", path, body, version="2.53")).status_code == 400
    for wrong, status in (("nope", 400), (UUIDS[9], 404), (UUIDS[2], 400)):
        answer = await api("PUT", f"/os-services/{wrong}", {"status": "disabled"}, version="2.53")
        assert answer.status_code == status


async def test_a_service_goes_only_without_servers_and_takes_its_nodes_along(api: Client) -> None:
    await add_host(api, 1)
    await server_rows.add(api.rt.db, host="host-1")
    await add_host(api, 2)
    busy = await api("DELETE", f"/os-services/{UUIDS[1]}", version="2.53")
    assert busy.status_code == 409
    gone = await api("DELETE", f"/os-services/{UUIDS[2]}", version="2.53")
    assert (gone.status_code, gone.content) == (204, b"")
    assert [h["id"] for h in (await get(api, "/os-hypervisors", "2.53"))["hypervisors"]] == [NODES[1]]
    assert (await api("DELETE", f"/os-services/{UUIDS[2]}", version="2.53")).status_code == 404
    assert (await api("DELETE", "/os-services/nope")).status_code == 400
    assert (await api("DELETE", "/os-services/77")).status_code == 404


# Hypervisors


async def test_hypervisors_show_what_their_version_has(api: Client) -> None:
    await add_host(api, 1)
    oldest = (await get(api, "/os-hypervisors/detail"))["hypervisors"][0]
    assert oldest == {
        "id": 1, "hypervisor_hostname": "host-1.example", "state": "up", "status": "enabled", "hypervisor_type": "QEMU",
        "hypervisor_version": 7002000, "host_ip": "192.0.2.1",
        "service": {"id": 1, "host": "host-1", "disabled_reason": None}, "vcpus": 8, "memory_mb": 8192, "local_gb": 100,
        "vcpus_used": 2, "memory_mb_used": 1536, "local_gb_used": 10, "free_ram_mb": 6656, "free_disk_gb": 90,
        "current_workload": 0, "running_vms": 2, "disk_available_least": 50, "cpu_info": '{"arch": "x86_64"}',
    }  # fmt: skip
    assert (await get(api, "/os-hypervisors/1", "2.28"))["hypervisor"]["cpu_info"] == {"arch": "x86_64"}
    by_uuid = (await get(api, f"/os-hypervisors/{NODES[1]}", "2.53"))["hypervisor"]
    assert (by_uuid["id"], by_uuid["service"]["id"]) == (NODES[1], UUIDS[1])
    newest = (await get(api, f"/os-hypervisors/{NODES[1]}", "2.88"))["hypervisor"]
    assert newest == {
        "id": NODES[1], "hypervisor_hostname": "host-1.example", "state": "up", "status": "enabled",
        "hypervisor_type": "QEMU", "hypervisor_version": 7002000, "host_ip": "192.0.2.1",
        "service": {"id": UUIDS[1], "host": "host-1", "disabled_reason": None}, "uptime": " 10:00:00 up 1 day",
    }  # fmt: skip
    await get(api, "/os-hypervisors/nope", status=404)
    await get(api, "/os-hypervisors/1", "2.53", status=400)
    await get(api, f"/os-hypervisors/{NODES[5]}", "2.53", status=404)


async def test_hypervisors_are_paged_from_2_33(api: Client) -> None:
    for number in (1, 2, 3):
        await add_host(api, number)
    page = await get(api, "/os-hypervisors/detail?limit=2", "2.53")
    assert [node["id"] for node in page["hypervisors"]] == NODES[1:3]
    assert page["hypervisors_links"][0]["href"].endswith(f"/os-hypervisors/detail?limit=2&marker={NODES[2]}")
    rest = await get(api, f"/os-hypervisors?limit=2&marker={NODES[2]}", "2.53")
    assert [node["id"] for node in rest["hypervisors"]] == NODES[3:4]
    assert len((await get(api, "/os-hypervisors?limit=1", "2.32"))["hypervisors"]) == 3
    assert (await get(api, "/os-hypervisors?limit=1", "2.33"))["hypervisors_links"][0]["href"].endswith("marker=1")
    await get(api, "/os-hypervisors?marker=nope", "2.33", status=400)
    await get(api, "/os-hypervisors?limit=1&hypervisor_hostname_pattern=h", "2.53", status=400)


async def test_hypervisors_are_found_by_a_part_of_their_name_with_their_servers(api: Client) -> None:
    await add_host(api, 1)
    await add_host(api, 2)
    server = await server_rows.add(api.rt.db, host="host-1")
    found = (await get(api, "/os-hypervisors/host-1/servers"))["hypervisors"]
    assert found[0]["servers"] == [{"name": "instance-00000001", "uuid": server}]
    assert "servers" not in (await get(api, "/os-hypervisors/host-2/servers"))["hypervisors"][0]
    assert len((await get(api, "/os-hypervisors/host/search"))["hypervisors"]) == 2
    await get(api, "/os-hypervisors/zzz/search", status=404)
    await get(api, "/os-hypervisors/host/search", "2.53", status=404)
    query = "/os-hypervisors?hypervisor_hostname_pattern=host-2&with_servers=true"
    assert "servers" not in (await get(api, query, "2.53"))["hypervisors"][0]
    assert (await get(api, query, "2.75"))["hypervisors"][0]["servers"] == []
    await get(api, "/os-hypervisors?hypervisor_hostname_pattern=zzz", "2.53", status=404)
    # A wildcard of the database is a letter like any other.
    await get(api, "/os-hypervisors?hypervisor_hostname_pattern=h_st", "2.53", status=404)


async def test_uptime_and_statistics_end_at_2_87(api: Client) -> None:
    await add_host(api, 1)
    await add_host(api, 2, disabled=True)
    await add_host(api, 3, last_seen=0)
    await add_host(api, 4, uptime=None)
    assert (await get(api, "/os-hypervisors/1/uptime"))["hypervisor"]["uptime"] == " 10:00:00 up 1 day"
    await get(api, "/os-hypervisors/3/uptime", status=400)
    await get(api, "/os-hypervisors/4/uptime", status=501)
    sums = (await get(api, "/os-hypervisors/statistics", "2.87"))["hypervisor_statistics"]
    assert (sums["count"], sums["vcpus"], sums["memory_mb_used"], sums["free_ram_mb"]) == (3, 24, 4608, 19968)
    await get(api, "/os-hypervisors/statistics", "2.88", status=404)
    await get(api, f"/os-hypervisors/{NODES[1]}/uptime", "2.88", status=404)


async def test_statistics_of_no_host_are_zero(api: Client) -> None:
    sums = (await get(api, "/os-hypervisors/statistics"))["hypervisor_statistics"]
    assert set(sums.values()) == {0}


@pytest.mark.parametrize("hosts", [1, 6])
async def test_a_list_of_hypervisors_costs_the_same_for_any_number(api: Client, hosts: int) -> None:
    for number in range(1, hosts + 1):
        await add_host(api, number)
    before = api.rt.db.statements
    assert len((await get(api, "/os-hypervisors/detail?with_servers=true", "2.75"))["hypervisors"]) == hosts
    assert api.rt.db.statements - before == 2


@pytest.mark.parametrize(
    "path", ["/os-hypervisors", "/os-hypervisors/statistics", "/os-services", "/os-availability-zone/detail"]
)
async def test_hosts_are_for_administrators(api: Client, path: str) -> None:
    assert (await api("GET", path, token="member")).status_code == 403


# Zones


async def test_zones_are_those_of_the_services(api: Client) -> None:
    await add_service(api, 1, "c", "nova-conductor")
    await add_host(api, 2)
    await add_host(api, 3, availability_zone="north", disabled=True)
    listed = await api("GET", "/os-availability-zone", token="reader")
    assert listed.json() == {
        "availabilityZoneInfo": [
            {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None},
            {"zoneName": "north", "zoneState": {"available": False}, "hosts": None},
        ]
    }
    detail = (await get(api, "/os-availability-zone/detail"))["availabilityZoneInfo"]
    assert [zone["zoneName"] for zone in detail] == ["internal", "nova", "north"]
    service = detail[1]["hosts"]["host-2"]["nova-compute"]
    assert service.pop("updated_at")
    assert service == {"available": True, "active": True}
    assert detail[2]["hosts"] is None


# Limits


async def test_limits_are_the_projects_own_before_the_classes_before_the_defaults(api: Client) -> None:
    async def work(tx: Tx) -> None:
        await tx.execute(sa.insert(quotas).values(project_id=PROJECT, resource="cores", hard_limit=7))
        for resource, limit in (("cores", 5), ("ram", 100)):
            await tx.execute(sa.insert(quota_classes).values(class_name="default", resource=resource, hard_limit=limit))
        await tx.execute(sa.insert(quota_usages).values(project_id=PROJECT, instances=2, cores=3, ram=1024))

    await api.rt.db.write(work)
    before = api.rt.db.statements
    answer = await api("GET", "/limits", token="member", version="2.57")
    assert api.rt.db.statements - before == 2
    assert answer.json() == {
        "limits": {
            "rate": [],
            "absolute": {
                "maxTotalCores": 7, "maxTotalRAMSize": 100, "maxTotalInstances": 10, "maxTotalKeypairs": 100,
                "maxServerMeta": 128, "maxServerGroups": 10, "maxServerGroupMembers": 10, "totalCoresUsed": 3,
                "totalRAMUsed": 1024, "totalInstancesUsed": 2, "totalServerGroupsUsed": 0,
            },
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "gone"),
    [
        ("2.35", set()),
        ("2.36", {"maxSecurityGroups", "totalFloatingIpsUsed"}),
        ("2.39", {"maxImageMeta"}),
        ("2.57", {"maxPersonality", "maxPersonalitySize"}),
    ],
)
async def test_limits_lose_fields_over_time(api: Client, version: str, gone: set[str]) -> None:
    before = (await get(api, "/limits", f"2.{int(version.split('.')[1]) - 1}"))["limits"]["absolute"]
    now = (await get(api, "/limits", version))["limits"]["absolute"]
    assert gone <= before.keys() - now.keys()
    assert bool(before.keys() - now.keys()) == bool(gone)


async def test_limits_of_another_project_are_for_administrators(api: Client) -> None:
    assert (await api("GET", f"/limits?tenant_id={OTHER_PROJECT}")).status_code == 200
    assert (await api("GET", f"/limits?tenant_id={OTHER_PROJECT}", token="member")).status_code == 403
