"""Which fields a server shows: at every version, in every answer, to every kind of caller."""

from __future__ import annotations

from typing import Any

import pytest

from kilonova.testing.api import Client
from tests.support import server_rows as rows

ALL = [f"2.{minor}" for minor in range(1, 105)]

# The versions at which any answer changes, and those just before.
TURNS = [version for version in ALL if {int(version[2:]), int(version[2:]) + 1} & {
    1, 3, 9, 16, 19, 26, 47, 63, 71, 73, 75, 90, 96, 98, 100, 104
}]  # fmt: skip

# From this version on, these are shown too; a minus takes one away.
Steps = dict[str, str]

BASE = (
    "accessIPv4 accessIPv6 addresses created flavor hostId id image links metadata name status tenant_id user_id "
    "updated OS-DCF:diskConfig progress"
)
REST = (
    "OS-EXT-AZ:availability_zone config_drive key_name OS-SRV-USG:launched_at OS-SRV-USG:terminated_at security_groups "
    "OS-EXT-STS:task_state OS-EXT-STS:vm_state OS-EXT-STS:power_state os-extended-volumes:volumes_attached"
)
HOST = "OS-EXT-SRV-ATTR:host OS-EXT-SRV-ATTR:instance_name OS-EXT-SRV-ATTR:hypervisor_hostname"
MORE = " ".join(
    f"OS-EXT-SRV-ATTR:{name}"
    for name in (
        "hostname", "kernel_id", "launch_index", "ramdisk_id", "reservation_id", "root_device_name", "user_data",
    )
)  # fmt: skip

SHOW: Steps = {
    "2.1": f"{BASE} {REST}",
    "2.9": "locked",
    "2.19": "description",
    "2.26": "tags",
    "2.63": "trusted_image_certificates",
    "2.71": "server_groups",
    "2.73": "locked_reason",
    "2.90": "OS-EXT-SRV-ATTR:hostname",
    "2.96": "pinned_availability_zone",
    "2.100": "scheduler_hints",
}
SHOW_ADMIN: Steps = SHOW | {"2.1": f"{BASE} {REST} {HOST}", "2.3": MORE, "2.16": "host_status"}
DETAIL = {version: names for version, names in SHOW.items() if version != "2.71"}
DETAIL_ADMIN = {version: names for version, names in SHOW_ADMIN.items() if version != "2.71"}
UPDATE: Steps = SHOW | {"2.1": BASE, "2.75": REST}
UPDATE_ADMIN: Steps = UPDATE | {"2.75": f"{REST} {HOST} {MORE} host_status"}


def shown(steps: Steps, version: str) -> set[str]:
    minor = int(version[2:])
    return {
        name for since, names in steps.items() if int(since[2:]) <= minor for name in names.split()
    }  # fmt: skip


async def add_full(api: Client) -> str:
    await rows.add_service(api.rt.db)
    return await rows.add(
        api.rt.db,
        "full",
        tags=("t2", "t1"),
        metadata={"k": "v"},
        display_description="words",
        security_groups=[{"name": "default"}],
        addresses=rows.ADDRESSES,
        key_name="key",
        user_data="YQ==",
        config_drive="True",
        locked=True,
        locked_by="owner",
        locked_reason="because",
        pinned_availability_zone="nova",
        scheduler_hints={"foo": "bar"},
        access_ip_v4="1.2.3.4",
    )


@pytest.mark.parametrize(("token", "steps"), [("admin", SHOW_ADMIN), ("member", SHOW), ("reader", SHOW)])
async def test_show_has_the_fields_of_each_version(api: Client, token: str, steps: Steps) -> None:
    server_id = await add_full(api)
    for version in ALL if token == "admin" else TURNS:
        answer = await api("GET", f"/servers/{server_id}", token=token, version=version)
        assert answer.status_code == 200
        assert set(answer.json()["server"]) == shown(steps, version), version


@pytest.mark.parametrize(("token", "steps"), [("admin", DETAIL_ADMIN), ("member", DETAIL)])
async def test_detail_has_the_fields_of_each_version(api: Client, token: str, steps: Steps) -> None:
    await add_full(api)
    for version in ALL if token == "admin" else TURNS:
        (server,) = (await api("GET", "/servers/detail", token=token, version=version)).json()["servers"]
        assert set(server) == shown(steps, version), version


@pytest.mark.parametrize(("token", "steps"), [("admin", UPDATE_ADMIN), ("member", UPDATE)])
async def test_update_has_the_fields_of_each_version(api: Client, token: str, steps: Steps) -> None:
    server_id = await add_full(api)
    for version in TURNS:
        answer = await api("PUT", f"/servers/{server_id}", {"server": {"name": "full"}}, token=token, version=version)
        assert answer.status_code == 200
        assert set(answer.json()["server"]) == shown(steps, version), version


async def test_values_at_the_first_and_the_last_version(api: Client) -> None:
    server_id = await add_full(api)
    base = "http://compute.test:8774"
    old = (await api("GET", f"/servers/{server_id}", token="member", version="2.1")).json()["server"]
    assert old["flavor"] == {"id": "1", "links": [{"rel": "bookmark", "href": f"{base}/flavors/1"}]}
    assert old["image"] == {
        "id": rows.IMAGE,
        "links": [{"rel": "bookmark", "href": f"{base}/images/{rows.IMAGE}"}],
    }
    assert old["links"] == [
        {"rel": "self", "href": f"{base}/v2.1/servers/{server_id}"},
        {"rel": "bookmark", "href": f"{base}/servers/{server_id}"},
    ]
    new = (await api("GET", f"/servers/{server_id}", version="2.104")).json()["server"]
    expected: dict[str, Any] = {
        "accessIPv4": "1.2.3.4",
        "accessIPv6": "",
        "addresses": rows.ADDRESSES,
        "created": "2026-01-02T03:04:05Z",
        "updated": "2026-01-02T03:04:05Z",
        "OS-SRV-USG:launched_at": "2026-01-02T03:04:05.678900",
        "OS-SRV-USG:terminated_at": None,
        "flavor": {
            "vcpus": 1,
            "ram": 512,
            "disk": 1,
            "ephemeral": 0,
            "swap": 0,
            "original_name": "m1.tiny",
            "extra_specs": {"hw:cpu_policy": "shared"},
        },
        "image": old["image"] | {"properties": {"hw_disk_bus": "virtio", "os_distro": "debian"}},
        "metadata": {"k": "v"},
        "tags": ["t1", "t2"],
        "locked": True,
        "locked_reason": "because",
        "host_status": "UP",
        "OS-EXT-SRV-ATTR:instance_name": "instance-00000001",
        "security_groups": [{"name": "default"}],
        "scheduler_hints": {"foo": ["bar"]},
        "pinned_availability_zone": "nova",
        "trusted_image_certificates": None,
        "server_groups": [],
    }
    assert {name: new[name] for name in expected} == expected


async def test_links_of_a_path_with_the_project_name_the_project(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    answer = await api("GET", f"/v2.1/{rows.PROJECT}/servers/{server_id}")
    base = "http://compute.test:8774"
    assert [link["href"] for link in answer.json()["server"]["links"]] == [
        f"{base}/v2.1/{rows.PROJECT}/servers/{server_id}",
        f"{base}/{rows.PROJECT}/servers/{server_id}",
    ]
    legacy = await api("GET", f"/v2/{rows.PROJECT}/servers/{server_id}")
    assert legacy.json()["server"]["links"][0]["href"] == f"{base}/v2/{rows.PROJECT}/servers/{server_id}"


@pytest.mark.parametrize(
    ("states", "status", "more"),
    [
        (("active", None), "ACTIVE", {"progress"}),
        (("active", "rebooting"), "REBOOT", set()),
        (("active", "reboot_started_hard"), "HARD_REBOOT", set()),
        (("active", "deleting"), "ACTIVE", {"progress"}),
        (("building", "spawning"), "BUILD", {"progress"}),
        (("stopped", None), "SHUTOFF", set()),
        (("stopped", "rebuilding"), "REBUILD", {"progress"}),
        (("paused", None), "PAUSED", set()),
        (("suspended", "resuming"), "SUSPENDED", set()),
        (("error", None), "ERROR", {"fault"}),
        (("error", "rebuild_spawning"), "REBUILD", {"progress"}),
        (("resized", None), "VERIFY_RESIZE", {"progress"}),
        (("no such state", None), "UNKNOWN", set()),
    ],
)
async def test_status_progress_and_fault_follow_the_state(
    api: Client, states: tuple[str, str | None], status: str, more: set[str]
) -> None:
    fault = {"code": 500, "message": "No host", "details": "why", "created": "2026-01-02T03:04:05Z"}
    vm_state, task_state = states
    server_id = await rows.add(api.rt.db, vm_state=vm_state, task_state=task_state, fault=fault)
    server = (await api("GET", f"/servers/{server_id}", token="member")).json()["server"]
    assert server["status"] == status
    assert {"progress", "fault"} & set(server) == more


async def test_details_of_our_faults_are_for_administrators(api: Client) -> None:
    ours = {"code": 500, "message": "No host", "details": "why", "created": "2026-01-02T03:04:05Z"}
    first = await rows.add(api.rt.db, vm_state="error", fault=ours)
    second = await rows.add(api.rt.db, vm_state="error", fault=ours | {"code": 400})
    for server_id, token, sees in ((first, "member", False), (first, "admin", True), (second, "member", True)):
        fault = (await api("GET", f"/servers/{server_id}", token=token)).json()["server"]["fault"]
        assert ("details" in fault) is sees


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ({}, "UP"),
        ({"age": 3600.0}, "UNKNOWN"),
        ({"disabled": True}, "MAINTENANCE"),
        ({"forced_down": True, "disabled": True}, "DOWN"),
    ],
)
async def test_host_status_tells_of_the_hosts_service(api: Client, service: dict[str, Any], status: str) -> None:
    await rows.add_service(api.rt.db, **service)
    server_id = await rows.add(api.rt.db)
    shown_status = (await api("GET", f"/servers/{server_id}", version="2.16")).json()["server"]["host_status"]
    assert shown_status == status


async def test_a_server_without_a_host_has_an_empty_host_status_and_host_id(api: Client) -> None:
    server_id = await rows.add(api.rt.db, vm_state="building", host=None, node=None, addresses=rows.ADDRESSES)
    server = (await api("GET", f"/servers/{server_id}", version="2.16")).json()["server"]
    assert server["host_status"] == ""
    assert server["hostId"] == ""
    assert server["addresses"] == {}


async def test_the_host_id_is_one_per_project_and_host(api: Client) -> None:
    first, second = await rows.add(api.rt.db), await rows.add(api.rt.db)
    other = await rows.add(api.rt.db, project_id="another")
    ids = [(await api("GET", f"/servers/{server}")).json()["server"]["hostId"] for server in (first, second, other)]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 56


async def test_show_costs_one_statement_and_detail_one_at_any_length(api: Client) -> None:
    db = api.rt.db
    for number in range(30):
        server_id = await rows.add(db, f"vm-{number}", tags=("a",))

    async def statements(path: str) -> int:
        before = db.statements
        assert (await api("GET", path, version="2.104")).status_code == 200
        return db.statements - before

    assert await statements(f"/servers/{server_id}") == 1
    assert await statements("/servers/detail?limit=1") == 1
    assert await statements("/servers/detail") == 1
    assert await statements(f"/servers/detail?marker={server_id}") == 2
    assert await statements("/servers") == 1


@pytest.mark.parametrize("path", ["/servers/{}", "/servers/{}/metadata", "/servers/{}/ips", "/servers/{}/tags"])
async def test_other_projects_servers_are_not_found(api: Client, path: str) -> None:
    server_id = await rows.add(api.rt.db)
    answer = await api("GET", path.format(server_id), token="other", version="2.104")
    assert answer.status_code == 404
    assert answer.json()["itemNotFound"]["message"] == f"Instance {server_id} could not be found."
    assert (await api("GET", path.format(server_id), token="other-admin", version="2.104")).status_code == 200


async def test_deleted_servers_are_not_found(api: Client) -> None:
    server_id = await rows.add(api.rt.db, deleted=7, vm_state="deleted")
    assert (await api("GET", f"/servers/{server_id}")).status_code == 404


async def test_show_refuses_parameters_from_2_102_on(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    assert (await api("GET", f"/servers/{server_id}?foo=1", version="2.101")).status_code == 200
    assert (await api("GET", f"/servers/{server_id}?foo=1", version="2.102")).status_code == 400


async def test_addresses_by_network(api: Client) -> None:
    server_id = await rows.add(api.rt.db, addresses=rows.ADDRESSES)
    plain = [{"version": 4, "addr": "192.168.1.3"}, {"version": 6, "addr": "fe80::3"}]
    assert (await api("GET", f"/servers/{server_id}/ips")).json() == {"addresses": {"private": plain}}
    assert (await api("GET", f"/servers/{server_id}/ips/private")).json() == {"private": plain}
    missing = await api("GET", f"/servers/{server_id}/ips/public")
    assert missing.status_code == 404
    assert missing.json()["itemNotFound"]["message"] == "Instance is not a member of specified network"
