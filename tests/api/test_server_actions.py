"""`POST /servers/{id}/action` and the record of what was done, `os-instance-actions`."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.api.servers.actions.refused import ACTIONS
from kilonova.db.tables import operation_steps, operations
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages
from tests.support import server_rows as rows

RECOGNISED = {
    "addFixedIp": {"networkId": "1"},
    "removeFixedIp": {"address": "1.2.3.4"},
    "addFloatingIp": {"address": "1.2.3.4"},
    "removeFloatingIp": {"address": "1.2.3.4"},
    "addSecurityGroup": {"name": "web"},
    "removeSecurityGroup": {"name": "web"},
    "changePassword": {"adminPass": "x"},
    "resize": {"flavorRef": "2"},
    "createBackup": {"name": "b", "backup_type": "daily", "rotation": 1},
    "createImage": {"name": "i"},
    "evacuate": {},
    "os-migrateLive": {"host": None, "block_migration": False},
}


async def act(
    api: Client, server_id: str, key: str, value: Any = None, *, token: str = "admin", version: str = "2.104"
) -> Any:
    return await api("POST", f"/servers/{server_id}/action", {key: value}, token=token, version=version)


async def message_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert error["code"] == status
    return str(error["message"])


async def submitted(api: Client) -> list[str]:
    found = await api.rt.db.read(lambda tx: tx.execute(sa.select(operations.c.kind).order_by(operations.c.id)))
    return [row[0] for row in found]


@pytest.mark.parametrize(
    ("key", "value", "vm_state", "task_state", "kind"),
    [
        ("os-stop", None, "active", "powering-off", "stop"),
        ("os-start", None, "stopped", "powering-on", "start"),
        ("reboot", {"type": "SOFT"}, "active", "rebooting", "reboot"),
        ("reboot", {"type": "hard"}, "stopped", "rebooting_hard", "reboot"),
        ("reboot", {"type": "Hard"}, "error", "rebooting_hard", "reboot"),
        ("pause", None, "active", "pausing", "pause"),
        ("unpause", None, "paused", "unpausing", "unpause"),
        ("suspend", None, "active", "suspending", "suspend"),
        ("resume", None, "suspended", "resuming", "resume"),
        ("os-stop", "anything", "active", "powering-off", "stop"),
    ],
)
async def test_an_action_is_accepted_and_submitted(
    api: Client, key: str, value: Any, vm_state: str, task_state: str, kind: str
) -> None:
    server_id = await rows.add(api.rt.db, vm_state=vm_state)
    answer = await act(api, server_id, key, value, token="member")
    assert (answer.status_code, answer.content) == (202, b"")
    assert (await rows.get(api.rt.db, server_id)).task_state == task_state
    assert await submitted(api) == [kind]


@pytest.mark.parametrize(
    ("key", "value", "name", "vm_state"),
    [
        ("os-stop", None, "stop", "stopped"),
        ("os-stop", None, "stop", "paused"),
        ("os-start", None, "start", "active"),
        ("reboot", {"type": "SOFT"}, "reboot", "stopped"),
        ("reboot", {"type": "SOFT"}, "reboot", "paused"),
        ("reboot", {"type": "HARD"}, "reboot", "building"),
        ("pause", None, "pause", "stopped"),
        ("unpause", None, "unpause", "active"),
        ("suspend", None, "suspend", "suspended"),
        ("resume", None, "resume", "active"),
        ("rebuild", {"imageRef": rows.IMAGE}, "rebuild", "paused"),
        ("confirmResize", None, "confirmResize", "active"),
        ("revertResize", None, "revertResize", "active"),
        ("restore", None, "restore", "active"),
        ("unrescue", None, "unrescue", "active"),
        ("unshelve", None, "unshelve", "active"),
        ("shelveOffload", None, "shelveOffload", "active"),
    ],
)
async def test_the_wrong_state_is_named_and_nothing_changes(
    api: Client, key: str, value: Any, name: str, vm_state: str
) -> None:
    assert isinstance(api.rt.images, StaticImages)
    api.rt.images.add(rows.IMAGE)
    server_id = await rows.add(api.rt.db, vm_state=vm_state)
    before = await rows.contents(api.rt.db)
    message = await message_of(await act(api, server_id, key, value), 409)
    assert message == f"Cannot '{name}' instance {server_id} while it is in vm_state {vm_state}"
    assert await rows.contents(api.rt.db) == before


async def test_a_task_under_way_is_named(api: Client) -> None:
    server_id = await rows.add(api.rt.db, task_state="rebooting", operation_id=4711)
    message = await message_of(await act(api, server_id, "pause"), 409)
    assert message == f"Cannot 'pause' instance {server_id} while it is in task_state rebooting"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"nope": None}, 400, "There is no such action: nope"),
        ({"os-start": None, "os-stop": None}, 400, "Malformed request body: "),
        ({}, 400, "Malformed request body: "),
        ({"reboot": None}, 400, "None is not of type 'object'"),
        ({"reboot": {}}, 400, "'type' is a required property"),
        ({"reboot": {"type": "FOO"}}, 400, "'FOO' is not one of ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']"),
        ({"rebuild": {}}, 400, "'imageRef' is a required property"),
        ({"rebuild": {"imageRef": "x"}}, 400, "'x' is not a 'uuid'"),
        ({"lock": {"locked_reason": "x" * 256}}, 400, "is too long"),
        ({"lock": {"reason": "x"}}, 400, "'reason' was unexpected"),
        ({"os-getConsoleOutput": {"length": "x"}}, 400, "'x' does not match"),
        ({"os-getConsoleOutput": {"length": -2}}, 400, "-2 is less than the minimum of -1"),
        ({"os-resetState": {"state": "stopped"}}, 400, "'stopped' is not one of ['active', 'error']"),
        ({"resize": {}}, 400, "'flavorRef' is a required property"),
        ({"resetNetwork": None}, 410, "removed"),
    ],
)
async def test_bad_bodies_are_refused(api: Client, body: dict[str, Any], status: int, message: str) -> None:
    server_id = await rows.add(api.rt.db)
    before = await rows.contents(api.rt.db)
    answer = await api("POST", f"/servers/{server_id}/action", body, version="2.104")
    assert message in await message_of(answer, status)
    assert await rows.contents(api.rt.db) == before


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.key)
async def test_what_is_not_built_is_recognised_and_refused(api: Client, action: Any) -> None:
    server_id = await rows.add(api.rt.db)
    before = await rows.contents(api.rt.db)
    first, last = action.since or "2.1", action.until or "2.104"
    value = RECOGNISED.get(action.key)
    at_first: Any = dict(value) if isinstance(value, dict) else value
    if action.key == "evacuate":
        at_first = {"onSharedStorage": False}
    if action.key == "os-migrateLive":
        at_first["disk_over_commit"] = False
    wanted = 409 if action.from_state else 501
    for version, body in ((first, at_first), (last, value)):
        message = await message_of(await act(api, server_id, action.key, body, version=version), wanted)
        assert f"'{action.key}'" in message
        missing = "00000000-0000-0000-0000-000000000000"
        assert (await act(api, missing, action.key, body, version=version)).status_code == 404
        assert (await act(api, server_id, action.key, body, token="reader", version=version)).status_code == 403
    if action.until:
        after = f"2.{int(action.until[2:]) + 1}"
        assert (await act(api, server_id, action.key, value, version=after)).status_code == 404
    assert await rows.contents(api.rt.db) == before


async def test_a_lock_keeps_members_off_and_administrators_not(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    assert (await act(api, server_id, "lock", {"locked_reason": "because"}, token="member")).status_code == 202
    shown = (await api("GET", f"/servers/{server_id}", version="2.73")).json()["server"]
    assert (shown["locked"], shown["locked_reason"]) == (True, "because")
    for key, value in (
        ("os-stop", None),
        ("reboot", {"type": "HARD"}),
        ("pause", None),
        ("suspend", None),
        ("forceDelete", None),
        ("resize", {"flavorRef": "2"}),
        ("shelve", None),
    ):
        message = await message_of(await act(api, server_id, key, value, token="member"), 409)
        assert message == f"Instance {server_id} is locked"
    assert (await act(api, server_id, "os-stop")).status_code == 202


async def test_an_administrators_lock_is_not_the_owners_to_open(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    assert (await act(api, server_id, "lock", token="other-admin")).status_code == 202
    assert (await rows.get(api.rt.db, server_id)).locked_by == "admin"
    # The owner's own lock does not take over the administrator's.
    assert (await act(api, server_id, "lock", {"locked_reason": "mine"}, token="member")).status_code == 202
    assert (await rows.get(api.rt.db, server_id)).locked_by == "admin"
    message = await message_of(await act(api, server_id, "unlock", token="member"), 403)
    assert "os-lock-server:unlock:unlock_override" in message
    assert (await act(api, server_id, "unlock")).status_code == 202
    assert (await rows.get(api.rt.db, server_id)).locked is False
    assert (await act(api, server_id, "unlock", token="member")).status_code == 202


async def test_before_2_73_a_lock_takes_no_reason(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    assert (await act(api, server_id, "lock", {"locked_reason": "x"}, version="2.72")).status_code == 202
    assert (await rows.get(api.rt.db, server_id)).locked_reason is None


@pytest.mark.parametrize("state", ["active", "error"])
async def test_reset_state_is_an_administrators_word(api: Client, state: str) -> None:
    server_id = await rows.add(api.rt.db, vm_state="stopped", task_state="rebuilding")
    assert (await act(api, server_id, "os-resetState", {"state": state})).status_code == 202
    row = await rows.get(api.rt.db, server_id)
    assert (row.vm_state, row.task_state) == (state, None)


async def test_a_server_without_a_host_has_no_console_output(api: Client) -> None:
    server_id = await rows.add(api.rt.db, host=None, vm_state="building")
    for length in ({}, {"length": "9" * 6000}):
        message = await message_of(await act(api, server_id, "os-getConsoleOutput", length), 409)
        assert message == f"Instance {server_id} is not ready"


async def test_rebuild_sets_what_it_names_and_answers_with_the_server(api: Client) -> None:
    assert isinstance(api.rt.images, StaticImages)
    api.rt.images.add(rows.IMAGE)
    await rows.add_key(api.rt.db, "member", "mykey")
    server_id = await rows.add(api.rt.db, metadata={"old": "1"}, key_name="old", user_data="b2xk")
    asked = {
        "imageRef": rows.IMAGE,
        "name": "new",
        "description": "words",
        "metadata": {"new": "2"},
        "adminPass": "secret",
        "key_name": "mykey",
        "user_data": "bmV3",
        "hostname": "new.example",
        "accessIPv4": "1.2.3.4",
        "trusted_image_certificates": None,
        "preserve_ephemeral": False,
    }
    answer = await act(api, server_id, "rebuild", asked, token="member")
    assert answer.status_code == 202, answer.text
    server = answer.json()["server"]
    expected = {
        "id": server_id,
        "status": "REBUILD",
        "name": "new",
        "description": "words",
        "metadata": {"new": "2"},
        "adminPass": "secret",
        "key_name": "mykey",
        "user_data": "bmV3",
        "OS-EXT-SRV-ATTR:hostname": "new.example",
        "accessIPv4": "1.2.3.4",
    }
    assert {name: server[name] for name in expected} == expected
    assert answer.headers["location"] == f"http://compute.test:8774/v2.1/servers/{server_id}"


async def test_rebuild_shows_key_and_user_data_from_their_versions_on(api: Client) -> None:
    assert isinstance(api.rt.images, StaticImages)
    api.rt.images.add(rows.IMAGE)
    for version, more in (
        ("2.1", set()),
        ("2.53", set()),
        ("2.54", {"key_name"}),
        ("2.57", {"key_name", "user_data"}),
        ("2.75", {"key_name", "user_data", "OS-EXT-STS:vm_state"}),
    ):
        server_id = await rows.add(api.rt.db)
        answer = await act(api, server_id, "rebuild", {"imageRef": rows.IMAGE}, version=version)
        assert {"key_name", "user_data", "OS-EXT-STS:vm_state"} & set(answer.json()["server"]) == more, version
        assert "OS-EXT-SRV-ATTR:user_data" not in answer.json()["server"]


@pytest.mark.parametrize(
    ("asked", "version", "status"),
    [
        ({"imageRef": "00000000-0000-0000-0000-000000000000"}, "2.104", 400),
        ({"key_name": "none-such"}, "2.104", 400),
        ({"key_name": "x"}, "2.53", 400),
        ({"trusted_image_certificates": ["a"]}, "2.104", 400),
        ({"preserve_ephemeral": True}, "2.104", 501),
        ({"personality": [{"path": "/a", "contents": "YQ=="}]}, "2.56", 501),
        ({"metadata": {f"k{number}": "v" for number in range(129)}}, "2.104", 403),
        ({"foo": 1}, "2.104", 400),
    ],
)
async def test_a_refused_rebuild_changes_nothing(api: Client, asked: dict[str, Any], version: str, status: int) -> None:
    assert isinstance(api.rt.images, StaticImages)
    api.rt.images.add(rows.IMAGE)
    server_id = await rows.add(api.rt.db)
    before = await rows.contents(api.rt.db)
    answer = await act(api, server_id, "rebuild", {"imageRef": rows.IMAGE, **asked}, token="member", version=version)
    await message_of(answer, status)
    assert await rows.contents(api.rt.db) == before


# os-instance-actions


async def add_action(api: Client, server_id: str, number: int, **changes: Any) -> str:
    request_id = f"req-00000000-0000-0000-0000-{number:012}"
    moment = rows.MOMENT + dt.timedelta(minutes=number)
    values = {
        "kind": "boot",
        "action": "create",
        "server_uuid": server_id,
        "project_id": rows.PROJECT,
        "user_id": "member",
        "request_id": request_id,
        "state": "done",
        "data": {},
        "created_at": moment,
        "updated_at": moment + dt.timedelta(seconds=1),
    } | changes

    async def work(tx: Any) -> None:
        result = await tx.execute(sa.insert(operations).values(values))
        await tx.execute(
            sa.insert(operation_steps).values(
                operation_id=result.inserted_primary_key[0],
                name="create_guest",
                phase="do",
                attempt=1,
                host="host-1",
                result="Success",
                details="d",
                traceback="t",
                started_at=moment,
                finished_at=moment,
            )
        )

    await api.rt.db.write(work)
    return request_id


async def test_actions_are_listed_newest_first_and_in_pages_from_2_58_on(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    ids = [await add_action(api, server_id, number) for number in range(3)]
    path = f"/servers/{server_id}/os-instance-actions"
    old = (await api("GET", f"{path}?limit=1", token="reader", version="2.57")).json()
    assert [action["request_id"] for action in old["instanceActions"]] == ids[::-1]
    assert set(old["instanceActions"][0]) == {
        "action", "instance_uuid", "request_id", "user_id", "project_id", "start_time", "message",
    }  # fmt: skip
    page = (await api("GET", f"{path}?limit=2", token="reader", version="2.58")).json()
    assert [action["request_id"] for action in page["instanceActions"]] == [ids[2], ids[1]]
    assert page["instanceActions"][0]["updated_at"] == "2026-01-02T03:06:06.678900"
    assert page["links"] == [{"rel": "next", "href": f"http://compute.test:8774/v2.1{path}?limit=2&marker={ids[1]}"}]
    rest = (await api("GET", f"{path}?limit=2&marker={ids[1]}", version="2.58")).json()
    assert [action["request_id"] for action in rest["instanceActions"]] == [ids[0]]
    assert "links" not in rest


async def test_actions_by_time(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    ids = [await add_action(api, server_id, number) for number in range(3)]
    path = f"/servers/{server_id}/os-instance-actions"

    async def listed(query: str) -> list[str]:
        answer = await api("GET", f"{path}?{query}", version="2.66")
        return [action["request_id"] for action in answer.json()["instanceActions"]]

    assert await listed("changes-since=2026-01-02T03:05:00Z") == [ids[2], ids[1]]
    assert await listed("changes-before=2026-01-02T03:05:00Z") == [ids[0]]
    for query, version in (
        ("changes-since=x", "2.58"),
        ("foo=1", "2.58"),
        ("limit=x", "2.58"),
        ("limit=1&limit=2", "2.58"),
        ("changes-before=2026-01-02T03:05:00Z", "2.65"),
        ("changes-since=2026-01-02T03:05:00Z&changes-before=2026-01-02T03:04:00Z", "2.66"),
        ("marker=none", "2.58"),
    ):
        await message_of(await api("GET", f"{path}?{query}", version=version), 400)


@pytest.mark.parametrize(
    ("token", "version", "fields"),
    [
        ("member", "2.50", None),
        ("admin", "2.50", {"event", "start_time", "finish_time", "result", "traceback"}),
        ("member", "2.51", {"event", "start_time", "finish_time", "result"}),
        ("member", "2.62", {"event", "start_time", "finish_time", "result", "hostId"}),
        ("admin", "2.62", {"event", "start_time", "finish_time", "result", "traceback", "host", "hostId"}),
        ("member", "2.84", {"event", "start_time", "finish_time", "result", "hostId"}),
        (
            "admin",
            "2.84",
            {"event", "start_time", "finish_time", "result", "traceback", "host", "hostId", "details"},
        ),
    ],
)
async def test_events_show_more_with_the_version_and_to_administrators(
    api: Client, token: str, version: str, fields: set[str] | None
) -> None:
    server_id = await rows.add(api.rt.db)
    request_id = await add_action(api, server_id, 1)
    answer = await api("GET", f"/servers/{server_id}/os-instance-actions/{request_id}", token=token, version=version)
    action = answer.json()["instanceAction"]
    if fields is None:
        assert "events" not in action
    else:
        assert set(action["events"][0]) == fields


async def test_the_step_under_way_is_an_event_without_an_end_and_tells_how_far_it_is(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    progress = {"stage": "image", "percent": 37}
    request_id = await add_action(api, server_id, 1, state="running", step=1, progress=progress)
    path = f"/servers/{server_id}/os-instance-actions/{request_id}"
    under_way, over = (await api("GET", path, version="2.84")).json()["instanceAction"]["events"]
    assert over["event"] == "create_guest"
    assert (under_way["event"], under_way["result"], under_way["finish_time"]) == ("build", None, None)
    assert under_way["start_time"] == "2026-01-02T03:05:06.678900"
    assert under_way["details"] == "image: 37 %"
    ended = await add_action(api, server_id, 2, state="done", step=2)
    events = (await api("GET", f"/servers/{server_id}/os-instance-actions/{ended}", version="2.84")).json()
    assert [event["event"] for event in events["instanceAction"]["events"]] == ["create_guest"]


async def test_an_action_that_failed_says_error(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    request_id = await add_action(api, server_id, 1, state="failed", error="no room")
    answer = await api("GET", f"/servers/{server_id}/os-instance-actions/{request_id}")
    assert answer.json()["instanceAction"]["message"] == "Error"
    missing = await api("GET", f"/servers/{server_id}/os-instance-actions/req-none")
    assert await message_of(missing, 404) == "Action req-none not found"


async def test_actions_of_deleted_servers_are_shown_from_2_21_on(api: Client) -> None:
    server_id = await rows.add(api.rt.db, deleted=5)
    await add_action(api, server_id, 1)
    path = f"/servers/{server_id}/os-instance-actions"
    assert (await api("GET", path, token="member", version="2.20")).status_code == 404
    assert (await api("GET", path, token="member", version="2.21")).status_code == 200
    assert (await api("GET", path, token="other", version="2.21")).status_code == 404
