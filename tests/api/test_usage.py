"""What projects used, what hosts hold, who migrated, what a guest counts: over HTTP, from rows."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from kilonova.api.usage.audit import last_month
from kilonova.bus.messages import Answer, Message
from kilonova.db import server_migrations
from kilonova.testing.api import Client
from kilonova.testing.identity import OTHER_PROJECT, PROJECT
from tests.support import server_rows

USAGE = "/os-simple-tenant-usage"
DAY = "start=2026-01-01T00:00:00&end=2026-01-02T00:00:00"


def at(day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(2026, 1, day, hour)  # noqa: DTZ001 - as the database has it


async def get(api: Client, path: str, version: str = "2.40", *, token: str = "admin", status: int = 200) -> Any:
    answer = await api("GET", path, version=version, token=token)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_usage_counts_what_lies_in_the_period(api: Client) -> None:
    size: dict[str, Any] = {"vcpus": 2, "memory_mb": 1024, "root_gb": 3, "ephemeral_gb": 1}
    inside = await server_rows.add(api.rt.db, launched_at=at(1, 6), terminated_at=at(1, 18), deleted=1, **size)
    through = await server_rows.add(api.rt.db, launched_at=dt.datetime(2025, 12, 1), **size)  # noqa: DTZ001
    for other in (
        {"launched_at": at(2)},
        {"launched_at": None},
        {"launched_at": dt.datetime(2025, 12, 1), "terminated_at": dt.datetime(2025, 12, 31), "deleted": 9},  # noqa: DTZ001
    ):
        await server_rows.add(api.rt.db, **other)
    (usage,) = (await get(api, f"{USAGE}?{DAY}&detailed=1"))["tenant_usages"]
    assert usage["tenant_id"] == PROJECT
    assert (usage["total_hours"], usage["total_vcpus_usage"]) == (36.0, 72.0)
    assert (usage["total_memory_mb_usage"], usage["total_local_gb_usage"]) == (36 * 1024.0, 144.0)
    found = {one["instance_id"]: one for one in usage["server_usages"]}
    assert found.keys() == {inside, through}
    assert (found[inside]["hours"], found[inside]["state"], found[inside]["uptime"]) == (12.0, "terminated", 43200)
    assert (found[through]["hours"], found[through]["state"]) == (24.0, "active")
    assert "server_usages" not in (await get(api, f"{USAGE}?{DAY}"))["tenant_usages"][0]


async def test_usage_by_pages(api: Client) -> None:
    for project in (PROJECT, OTHER_PROJECT, PROJECT):
        await server_rows.add(api.rt.db, project_id=project, launched_at=at(1))
    seen: list[tuple[str, str]] = []
    path = f"{USAGE}?{DAY}&detailed=1&limit=1"
    while path:
        before = api.rt.db.statements
        page = await get(api, path)
        assert api.rt.db.statements - before <= 2
        seen += [
            (one["tenant_id"], two["instance_id"]) for one in page["tenant_usages"] for two in one["server_usages"]
        ]
        links = page.get("tenant_usages_links")
        path = links[0]["href"].partition("/v2.1")[2] if links else ""
    assert len(seen) == 3
    assert seen == sorted(seen)
    assert len((await get(api, f"{USAGE}/{PROJECT}?{DAY}"))["tenant_usage"]["server_usages"]) == 2


@pytest.mark.parametrize(
    "query",
    ["start=x", "end=2026-13-01T00:00:00", "start=2999-01-01T00:00:00", "limit=x", "marker=none", f"{DAY}&start="],
)
async def test_usage_of_no_time_is_refused(api: Client, query: str) -> None:
    status = 200 if query.endswith("start=") else 400
    await get(api, f"{USAGE}?{query}", status=status)
    await get(api, f"{USAGE}/{PROJECT}?{query}", status=status)


async def test_usage_of_others_is_for_administrators(api: Client) -> None:
    await get(api, f"{USAGE}?{DAY}", token="member", status=403)
    await get(api, f"{USAGE}/{OTHER_PROJECT}?{DAY}", token="member", status=403)
    assert await get(api, f"{USAGE}/{PROJECT}?{DAY}", token="reader") == {"tenant_usage": {}}


@pytest.mark.parametrize(
    ("before", "begin", "end"),
    [
        (at(15), (2025, 12, 1), (2026, 1, 1)),
        (at(1), (2025, 11, 1), (2025, 12, 1)),
        (at(1, 1), (2025, 12, 1), (2026, 1, 1)),
        (dt.datetime(2026, 3, 31), (2026, 2, 1), (2026, 3, 1)),  # noqa: DTZ001
    ],
)
def test_the_audit_is_of_the_last_whole_month(before: dt.datetime, begin: Any, end: Any) -> None:
    assert last_month(before) == (dt.datetime(*begin), dt.datetime(*end))  # noqa: DTZ001


async def test_a_host_says_what_each_project_has_there(api: Client) -> None:
    await server_rows.add_service(api.rt.db)
    await server_rows.add_node(api.rt.db, vcpus_used=5)
    for project, vcpus in ((PROJECT, 1), (PROJECT, 2), (OTHER_PROJECT, 4)):
        await server_rows.add(api.rt.db, project_id=project, vcpus=vcpus)
    lines = [line["resource"] for line in (await get(api, "/os-hosts/host-1", "2.42"))["host"]]
    assert {line["project"]: line["cpu"] for line in lines} == {
        "(total)": 8, "(used_now)": 5, "(used_max)": 7, PROJECT: 3, OTHER_PROJECT: 4,
    }  # fmt: skip
    listed = (await get(api, "/os-hosts", "2.42"))["hosts"]
    assert listed == [{"host_name": "host-1", "service": "compute", "zone": "nova"}]
    assert (await get(api, "/os-hosts?zone=internal", "2.42"))["hosts"] == []
    await get(api, "/os-hosts", "2.43", status=404)
    for doing in ("startup", "shutdown", "reboot"):
        await get(api, f"/os-hosts/host-1/{doing}", "2.42", status=501)
        await get(api, f"/os-hosts/nohost/{doing}", "2.42", status=404)


async def migrate(api: Client, server: str, day: int, **changes: Any) -> int:
    values: dict[str, Any] = {
        "uuid": f"00000000-0000-4000-8000-0000000000{day:02}", "instance_uuid": server, "project_id": PROJECT,
        "user_id": "member", "migration_type": "live-migration", "status": "running", "source_compute": "host-1",
        "source_node": "host-1", "dest_compute": "host-2", "dest_node": "host-2", "dest_host": "192.0.2.2",
        "memory_total": 10, "created_at": at(day),
    }  # fmt: skip
    return await api.rt.db.write(lambda tx: server_migrations.insert(tx, values | changes))


async def test_migrations_by_versions_pages_filters_and_rights(api: Client) -> None:
    server = await server_rows.add(api.rt.db)
    for day, changes in enumerate(
        ({"status": "completed", "migration_type": "resize"}, {}, {"hidden": True}, {"project_id": OTHER_PROJECT}), 1
    ):
        await migrate(api, server, day, **changes)
    old = (await get(api, "/os-migrations", "2.1"))["migrations"]
    assert [one["id"] for one in old] == [1, 2, 4]
    assert old[0].keys() == {
        "id", "instance_uuid", "source_compute", "source_node", "dest_compute", "dest_node", "dest_host", "status",
        "old_instance_type_id", "new_instance_type_id", "created_at", "updated_at",
    }  # fmt: skip
    new = (await get(api, "/os-migrations", "2.80"))["migrations"]
    assert [one["id"] for one in new] == [4, 2, 1]
    assert new[0].keys() - old[0].keys() == {"uuid", "user_id", "project_id", "migration_type", "links"}
    assert "links" not in new[2]
    page = await get(api, "/os-migrations?limit=1", "2.59")
    assert [one["id"] for one in page["migrations"]] == [4]
    link = page["migrations_links"][0]["href"].partition("/v2.1")[2]
    # A hidden one takes its place on its page.
    assert (await get(api, link, "2.59"))["migrations"] == []
    for query, expected in (
        ("status=completed", [1]),
        ("migration_type=resize", [1]),
        ("host=host-2", [4, 2, 1]),
        ("source_compute=host-2", []),
        ("changes-since=2026-01-02T00:00:00Z", [4, 2]),
        ("changes-before=2026-01-02T00:00:00Z", [2, 1]),
        (f"project_id={OTHER_PROJECT}", [4]),
        (f"instance_uuid={OTHER_PROJECT}", []),
    ):
        found = (await get(api, f"/os-migrations?{query}", "2.80"))["migrations"]
        assert [one["id"] for one in found] == expected, query
    await get(api, "/os-migrations", "2.80", token="manager", status=403)
    mine = (await get(api, f"/os-migrations?project_id={PROJECT}", "2.80", token="manager"))["migrations"]
    assert [(one["id"], one["dest_compute"]) for one in mine] == [(2, None), (1, None)]


async def test_live_migrations_of_a_server_that_go_on(api: Client) -> None:
    server = await server_rows.add(api.rt.db)
    await migrate(api, server, 1, status="completed")
    going = await migrate(api, server, 2)
    path = f"/servers/{server}/migrations"
    (shown,) = (await get(api, path, "2.80"))["migrations"]
    assert (shown["id"], shown["server_uuid"], shown["memory_total_bytes"]) == (going, server, 10)
    assert (await get(api, f"{path}/{going}", "2.23"))["migration"]["dest_compute"] == "host-2"
    await get(api, f"{path}/1", "2.23", status=404)
    await get(api, path, "2.22", status=404)


async def test_diagnostics_are_asked_of_the_host_of_a_guest_that_runs(api: Client) -> None:
    told = {"state": "running", "num_cpus": 1, "cpu_details": [{"id": 0, "time": 5}], "legacy": {"cpu0_time": 5}}
    asked: list[Message] = []

    async def answer(message: Message) -> Answer:
        asked.append(message)
        return Answer(data=told)

    await api.rt.bus.listen("agent.host-1", answer)
    server = await server_rows.add(api.rt.db)
    shown = await get(api, f"/servers/{server}/diagnostics", "2.48")
    assert shown["cpu_details"] == [{"id": 0, "time": 5, "utilisation": None}]
    assert (shown["memory_details"], shown["nic_details"]) == ({"maximum": None, "used": None}, [])
    assert await get(api, f"/servers/{server}/diagnostics", "2.47") == {"cpu0_time": 5}
    await get(api, f"/servers/{server}/diagnostics", token="member", status=403)
    for state in ({"power_state": 4}, {"host": None}):
        other = await server_rows.add(api.rt.db, **state)
        await get(api, f"/servers/{other}/diagnostics", status=409)
    assert len(asked) == 2
