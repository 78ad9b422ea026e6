"""Update, delete, metadata and tags of servers."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.db.tables import operations
from kilonova.testing.api import Client
from tests.support import server_rows as rows


async def message_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert error["code"] == status
    return str(error["message"])


async def test_update_changes_what_it_names_and_nothing_else(api: Client) -> None:
    server_id = await rows.add(api.rt.db, display_description="old")
    changes = {
        "name": "new",
        "hostname": "new.example",
        "accessIPv4": "1.2.3.4",
        "accessIPv6": "fe80::1",
        "OS-DCF:diskConfig": "AUTO",
        "pinned_availability_zone": "nova",
    }
    answer = await api("PUT", f"/servers/{server_id}", {"server": changes}, version="2.104")
    assert answer.status_code == 200
    server = answer.json()["server"]
    server["hostname"] = server["OS-EXT-SRV-ATTR:hostname"]
    assert {name: server[name] for name in changes} == changes
    assert server["description"] == "old"
    cleared = await api("PUT", f"/servers/{server_id}", {"server": {"description": None}}, version="2.104")
    assert cleared.json()["server"]["description"] is None


async def test_an_empty_update_changes_nothing(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    before = await rows.contents(api.rt.db)
    assert (await api("PUT", f"/servers/{server_id}", {"server": {}})).status_code == 200
    assert await rows.contents(api.rt.db) == before


async def test_pins_follow_the_servers_own_zone(api: Client) -> None:
    server_id = await rows.add(api.rt.db, availability_zone="east")

    async def pin(zone: str | None) -> Any:
        return await api(
            "PUT", f"/servers/{server_id}", {"server": {"pinned_availability_zone": zone}}, version="2.104"
        )

    assert "current availability zone 'east', but 'west' was requested" in await message_of(await pin("west"), 409)
    assert (await pin("east")).json()["server"]["pinned_availability_zone"] == "east"
    assert "Unpin first" in await message_of(await pin("west"), 409)
    assert (await pin(None)).json()["server"]["pinned_availability_zone"] is None


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ({"foo": 1}, "2.104"),
        ({"name": ""}, "2.104"),
        ({"name": None}, "2.104"),
        ({"accessIPv4": ""}, "2.104"),
        ({"accessIPv6": "1.2.3.4"}, "2.104"),
        ({"description": "x" * 256}, "2.104"),
        ({"description": "x"}, "2.18"),
        ({"hostname": "x.y"}, "2.93"),
        ({"hostname": "xy"}, "2.89"),
        ({"OS-DCF:diskConfig": "SOME"}, "2.104"),
        ({"pinned_availability_zone": "nova"}, "2.103"),
    ],
)
async def test_a_bad_update_is_refused_and_changes_nothing(api: Client, changes: dict[str, Any], version: str) -> None:
    server_id = await rows.add(api.rt.db)
    before = await rows.contents(api.rt.db)
    await message_of(await api("PUT", f"/servers/{server_id}", {"server": changes}, version=version), 400)
    assert await rows.contents(api.rt.db) == before


@pytest.mark.parametrize(("token", "status"), [("reader", 403), ("other", 404)])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "", {"server": {"name": "x"}}),
        ("DELETE", "", None),
        ("POST", "/metadata", {"metadata": {}}),
        ("PUT", "/metadata", {"metadata": {}}),
        ("PUT", "/metadata/k", {"meta": {"k": "v"}}),
        ("DELETE", "/metadata/k", None),
        ("PUT", "/tags", {"tags": []}),
        ("PUT", "/tags/x", None),
        ("DELETE", "/tags", None),
        ("DELETE", "/tags/x", None),
        ("POST", "/action", {"os-stop": None}),
        ("POST", "/action", {"reboot": {"type": "SOFT"}}),
        ("POST", "/action", {"lock": None}),
        ("POST", "/action", {"rebuild": {"imageRef": rows.IMAGE}}),
        ("POST", "/action", {"os-resetState": {"state": "error"}}),
        ("POST", "/action", {"forceDelete": None}),
        ("POST", "/action", {"os-getConsoleOutput": {}}),
    ],
)
async def test_changes_are_for_the_projects_members(
    api: Client, token: str, status: int, method: str, path: str, body: Any
) -> None:
    server_id = await rows.add(api.rt.db, metadata={"k": "v"}, tags=("x",))
    before = await rows.contents(api.rt.db)
    await message_of(await api(method, f"/servers/{server_id}{path}", body, token=token, version="2.104"), status)
    assert await rows.contents(api.rt.db) == before


async def test_delete_answers_204_and_marks_the_server(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    for _ in range(2):
        answer = await api("DELETE", f"/servers/{server_id}", token="member")
        assert (answer.status_code, answer.content) == (204, b"")
    row = await rows.get(api.rt.db, server_id)
    assert (row.deleting, row.task_state) == (True, "deleting")
    submitted = (await api.rt.db.read(lambda tx: tx.execute(sa.select(operations)))).mappings().all()
    assert [operation["kind"] for operation in submitted] == ["delete"]


async def test_a_locked_server_is_deleted_by_administrators_only(api: Client) -> None:
    server_id = await rows.add(api.rt.db, locked=True, locked_by="owner")
    answer = await api("DELETE", f"/servers/{server_id}", token="member")
    assert await message_of(answer, 409) == f"Instance {server_id} is locked"
    assert (await api("DELETE", f"/servers/{server_id}")).status_code == 204


# Metadata


async def test_metadata_is_added_replaced_and_removed(api: Client) -> None:
    path = f"/servers/{await rows.add(api.rt.db, metadata={'a': '1'})}/metadata"
    assert (await api("GET", path)).json() == {"metadata": {"a": "1"}}
    added = await api("POST", path, {"metadata": {"b": "2", "a": "3"}})
    assert (added.status_code, added.json()) == (200, {"metadata": {"a": "3", "b": "2"}})
    assert (await api("PUT", f"{path}/c", {"meta": {"c": "4"}})).json() == {"meta": {"c": "4"}}
    assert (await api("GET", f"{path}/c")).json() == {"meta": {"c": "4"}}
    assert (await api("DELETE", f"{path}/a")).status_code == 204
    assert (await api("GET", path)).json() == {"metadata": {"b": "2", "c": "4"}}
    assert (await api("PUT", path, {"metadata": {"d": "5"}})).json() == {"metadata": {"d": "5"}}
    assert (await api("GET", path)).json() == {"metadata": {"d": "5"}}


async def test_metadata_that_is_not_there(api: Client) -> None:
    path = f"/servers/{await rows.add(api.rt.db)}/metadata/none"
    assert await message_of(await api("GET", path), 404) == "Metadata item was not found"
    assert await message_of(await api("DELETE", path), 404) == "Metadata item was not found"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/c", {"meta": {"d": "3"}}, 400),
        ("PUT", "/c", {"meta": {"c": "3", "d": "3"}}, 400),
        ("PUT", "/c", {"meta": {}}, 400),
        ("PUT", "/c", {"meta": {"c": 3}}, 400),
        ("POST", "", {"metadata": {"b": None}}, 400),
        ("POST", "", {"metadata": {"b": "x" * 256}}, 400),
        ("POST", "", {"metadata": {"ä": "x"}}, 400),
        ("POST", "", {"metadata": {}, "more": 1}, 400),
        ("POST", "", {}, 400),
        ("POST", "", {"metadata": {f"k{number}": "v" for number in range(129)}}, 403),
        ("PUT", "", {"metadata": {f"k{number}": "v" for number in range(129)}}, 403),
    ],
)
async def test_bad_metadata_is_refused(api: Client, method: str, path: str, body: Any, status: int) -> None:
    server_id = await rows.add(api.rt.db, metadata={"a": "1"})
    await message_of(await api(method, f"/servers/{server_id}/metadata{path}", body), status)
    assert (await rows.get(api.rt.db, server_id)).metadata == {"a": "1"}


async def test_metadata_over_a_lowered_quota_may_still_shrink(api: Client) -> None:
    many = {f"k{number}": "v" for number in range(200)}
    server_id = await rows.add(api.rt.db, metadata=many)
    assert (await api("DELETE", f"/servers/{server_id}/metadata/k0")).status_code == 204


@pytest.mark.parametrize("vm_state", ["building", "error", "rescued"])
async def test_metadata_and_tags_wait_for_a_settled_server(api: Client, vm_state: str) -> None:
    server_id = await rows.add(api.rt.db, vm_state=vm_state, metadata={"a": "1"}, tags=("x",))
    base = f"/servers/{server_id}"
    for method, path, body, action in (
        ("POST", "/metadata", {"metadata": {"b": "2"}}, "update metadata"),
        ("DELETE", "/metadata/a", None, "delete metadata"),
        ("PUT", "/tags/y", None, "update tag"),
        ("PUT", "/tags", {"tags": []}, "update tags"),
        ("DELETE", "/tags/x", None, "delete tag"),
        ("DELETE", "/tags", None, "delete tags"),
    ):
        answer = await api(method, base + path, body, version="2.104")
        assert (
            await message_of(answer, 409)
            == f"Cannot '{action}' instance {server_id} while it is in vm_state {vm_state}"
        )


async def test_locks_hold_for_metadata_and_not_for_tags_and_names(api: Client) -> None:
    server_id = await rows.add(api.rt.db, locked=True, locked_by="owner")
    base = f"/servers/{server_id}"
    locked = await api("POST", f"{base}/metadata", {"metadata": {"a": "b"}}, token="member")
    assert await message_of(locked, 409) == f"Instance {server_id} is locked"
    assert (await api("PUT", f"{base}/tags/x", token="member", version="2.26")).status_code == 201
    assert (await api("PUT", base, {"server": {"name": "n"}}, token="member")).status_code == 200


# Tags


async def test_tags_are_put_listed_checked_and_removed(api: Client) -> None:
    server_id = await rows.add(api.rt.db)
    path = f"/servers/{server_id}/tags"

    async def call(method: str, more: str = "", body: Any = None) -> Any:
        return await api(method, path + more, body, token="member", version="2.26")

    new = await call("PUT", "/one")
    assert (new.status_code, new.content) == (201, b"")
    assert new.headers["location"] == f"http://compute.test:8774/v2.1{path}/one"
    assert (await call("PUT", "/%F0%9F%98%80")).headers["location"].endswith("/tags/%F0%9F%98%80")
    again = await call("PUT", "/one")
    assert (again.status_code, "location" in again.headers) == (204, False)
    assert (await call("GET", "/one")).status_code == 204
    assert await message_of(await call("GET", "/two"), 404) == f"Server {server_id} has no tag 'two'"
    assert (await call("PUT", "", {"tags": ["c", "b", "c"]})).json() == {"tags": ["b", "c"]}
    assert (await call("GET")).json() == {"tags": ["b", "c"]}
    assert (await call("DELETE", "/b")).status_code == 204
    assert await message_of(await call("DELETE", "/b"), 404) == f"Instance {server_id} has no tag 'b'"
    assert (await call("DELETE")).status_code == 204
    assert (await call("GET")).json() == {"tags": []}


async def test_bad_tags_are_refused(api: Client) -> None:
    path = f"/servers/{await rows.add(api.rt.db)}/tags"
    for tag in ("a,b", "x" * 61):
        assert f"Tag '{tag}' is invalid." in await message_of(await api("PUT", f"{path}/{tag}", version="2.26"), 400)
    for tags in (["a/b"], [""], ["x" * 61], [1], [str(number) for number in range(51)]):
        await message_of(await api("PUT", path, {"tags": tags}, version="2.26"), 400)
    await message_of(await api("PUT", f"{path}/a", {"x": 1}, version="2.26"), 400)


async def test_a_server_has_50_tags_at_most(api: Client) -> None:
    path = f"/servers/{await rows.add(api.rt.db, tags=tuple(str(number) for number in range(50)))}/tags"
    answer = await api("PUT", f"{path}/more", version="2.26")
    assert await message_of(answer, 400) == "The number of tags exceeded the per-server limit 50"


async def test_tags_are_not_there_before_2_26(api: Client) -> None:
    path = f"/servers/{await rows.add(api.rt.db)}/tags"
    assert (await api("GET", path, version="2.25")).status_code == 404
    assert (await api("PUT", f"{path}/a", version="2.25")).status_code == 404
