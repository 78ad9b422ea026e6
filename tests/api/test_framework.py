"""What every operation shares: links behind proxies, bodies, policy files, schemas by version."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from kilonova.api import policy as policy_module
from kilonova.api.app import create_app
from kilonova.api.fields import Field, Object, QuerySchema, Schema, body
from kilonova.api.policy import Policy
from kilonova.api.routing import Route
from kilonova.api.settings import ApiSettings
from kilonova.api.types import BOOLEAN, bounded, multi
from kilonova.api.unbuilt import UNBUILT
from kilonova.api.versions import LEGACY, Version
from kilonova.context import RequestContext
from kilonova.errors import Invalid
from kilonova.runtime import Runtime
from kilonova.testing.api import Client
from kilonova.testing.identity import PROJECT, StaticTokens

_FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cloud.example", "X-Forwarded-Prefix": "/compute"}


async def self_link(runtime: Runtime, settings: ApiSettings, headers: dict[str, str]) -> str:
    transport = httpx.ASGITransport(app=create_app(runtime, StaticTokens(), settings=settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://inside:8774") as http:
        answer = await http.get("/v2.1/versions/v2.1", headers={"X-Auth-Token": "reader"} | headers)
    href: str = answer.json()["version"]["links"][0]["href"]
    return href


@pytest.mark.parametrize(
    ("settings", "headers", "href"),
    [
        (ApiSettings(), _FORWARDED, "http://inside:8774/v2.1/"),
        (ApiSettings(enable_proxy_headers_parsing=True), {}, "http://inside:8774/v2.1/"),
        (ApiSettings(enable_proxy_headers_parsing=True), _FORWARDED, "https://cloud.example/compute/v2.1/"),
        (
            ApiSettings(enable_proxy_headers_parsing=True),
            {"X-Forwarded-Host": "cloud.example", "X-Forwarded-Port": "444"},
            "http://cloud.example:444/v2.1/",
        ),
        (
            ApiSettings(enable_proxy_headers_parsing=True),
            {"Forwarded": 'for=192.0.2.1;proto=https;host="cloud.example:444", for=10.0.0.1'},
            "https://cloud.example:444/v2.1/",
        ),
        (
            ApiSettings(secure_proxy_ssl_header="HTTP_X_FORWARDED_PROTO"),
            {"X-Forwarded-Proto": "https"},
            "https://inside:8774/v2.1/",
        ),
    ],
)
async def test_links_follow_a_proxy_only_where_it_is_believed(
    runtime: Runtime, settings: ApiSettings, headers: dict[str, str], href: str
) -> None:
    assert await self_link(runtime, settings, headers) == href


async def test_the_link_prefix_stands_for_the_address(runtime: Runtime) -> None:
    prefixed = dataclasses.replace(runtime.settings, compute_link_prefix="https://cloud.example/compute/")
    changed = dataclasses.replace(runtime, settings=prefixed)
    assert (await self_link(changed, ApiSettings(), {})).startswith("https://cloud.example/compute/")


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"{", 400, "Malformed request body: Input data was truncated."),
        (b"\xff\xfe", 400, "Malformed request body: "),
        (b'{"flavor": NaN}', 400, "Malformed request body: "),
        (b'{"a": "\\ud800"}', 400, "Malformed request body: "),
        (b"[" * 5000, 400, "Malformed request body: "),
        (b"", 400, "None is not of type 'object'"),
        (b"[]", 400, "[] is not of type 'object'"),
    ],
)
async def test_bodies_that_are_none(api: Client, content: bytes, status: int, message: str) -> None:
    headers = {"X-Auth-Token": "admin", "Content-Type": "application/json"}
    answer = await api.http.post("/v2.1/flavors", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["badRequest"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "Malformed request body: "),
        (b"{}", 400, "Malformed request body: "),
        (b"[]", 400, "Malformed request body: "),
        (b'{"a": 1, "b": 2}', 400, "Malformed request body: "),
        (b'{"explode": null}', 400, "There is no such action: explode"),
        (b"null", 404, "The resource could not be found."),
        (b"1", 404, "The resource could not be found."),
    ],
)
async def test_actions_go_by_the_one_key_of_the_body(api: Client, content: bytes, status: int, message: str) -> None:
    answer = await api.http.post("/v2.1/flavors/f/action", content=content, headers={"X-Auth-Token": "admin"})
    (error,) = answer.json().values()
    assert answer.status_code == status
    assert error["message"].startswith(message)


async def test_a_query_that_is_not_utf_8_is_refused(api: Client) -> None:
    answer = await api("GET", "/flavors?name=%ff")
    assert answer.json()["badRequest"]["message"] == "Query string is not UTF-8 encoded"


async def test_what_is_not_built_says_so_and_what_is_gone_too(api: Client) -> None:
    for operation in UNBUILT:
        if isinstance(operation, Route) and operation.status == 501:
            path = re.sub(r"\{\w+\}", "x", operation.path)
            later = await api(operation.method, path, token="member", version=str(max(operation.first, Version(2, 1))))
            assert later.status_code == 501
            told = later.json()["notImplemented"]["message"]
            assert f"{operation.method} {path} is not available in this release. Nothing was changed." == told
    assert (await api("GET", "/os-cells")).status_code == 410
    assert (await api("GET", "/os-hosts", version="2.43")).status_code == 404


async def test_a_failure_of_ours_tells_nothing_but_where_to_look(
    api: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*args: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.rt.db, "read", fail)
    answer = await api("GET", "/flavors")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.headers["x-compute-request-id"] in answer.json()["computeFault"]["message"]
    assert "secret detail" in caplog.text


# Policy


def context(*roles: str, project_id: str = PROJECT, is_admin: bool = False) -> RequestContext:
    return RequestContext(
        user_id="u", project_id=project_id, roles=frozenset(roles), request_id="req-1", is_admin=is_admin
    )


def test_ownership_decides_for_members_and_not_for_administrators() -> None:
    policy = Policy()
    rule, theirs = "os_compute_api:servers:start", {"project_id": "theirs", "user_id": "v"}
    assert policy.allows(rule, context("member"))
    assert not policy.allows(rule, context("member"), theirs)
    assert not policy.allows(rule, context("reader"))
    assert policy.allows(rule, context("admin", is_admin=True), theirs)
    assert not policy.allows("compute:servers:resize:cross_cell",
                             context("admin", is_admin=True))  # fmt: skip
    with pytest.raises(LookupError):
        policy.allows("no:such:rule", context("admin"))


def test_a_policy_file_overrides_and_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_LOOK_AGAIN", 0.0)
    path = tmp_path / "policy.yaml"
    path.write_text('"os_compute_api:os-services:list": "role:auditor"\n')
    policy = Policy(path)
    assert policy.allows("os_compute_api:os-services:list", context("auditor"))
    assert not policy.allows("os_compute_api:os-services:list", context("admin", is_admin=True))
    path.write_text('"os_compute_api:os-services:list": "project_id:0123456789"\n')
    assert not policy.allows("os_compute_api:os-services:list", context("auditor"))
    assert policy.allows("os_compute_api:os-services:list", context("reader", project_id="0123456789"))


# Schemas


THING = body(
    "thing",
    Object(
        Field("name", {"type": "string", "minLength": 1}, required=True),
        Field("size", bounded(1, 10), since="2.5"),
        Field("flag", BOOLEAN, until="2.9"),
        Field("parts", {"type": "array", "items": Object(Field("id", {"type": "string", "format": "uuid"}))}),
    ),
)


def refusal(schema: Schema, version: Version, value: Any) -> str:
    with pytest.raises(Invalid) as caught:
        schema.at(version).check(value)
    return caught.value.message


def test_fields_come_and_go_with_versions() -> None:
    THING.at(Version(2, 5)).check({"thing": {"name": "x", "size": "3"}})
    assert "'size' was unexpected" in refusal(THING, Version(2, 4), {"thing": {"name": "x", "size": "3"}})
    THING.at(Version(2, 9)).check({"thing": {"name": "x", "flag": "yes"}})
    assert "'flag' was unexpected" in refusal(THING, Version(2, 10), {"thing": {"name": "x", "flag": "yes"}})


def test_a_validator_is_built_once_between_two_changes() -> None:
    assert THING.at(Version(2, 10)) is THING.at(Version(2, 104))
    assert THING.at(Version(2, 9)) is not THING.at(Version(2, 10))
    assert THING.at(Version(2, 1)) is not THING.at(LEGACY)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({}, "Invalid input for field/attribute thing. Value: {}. 'name' is a required property"),
        ({"name": "", "size": 1}, "Invalid input for field/attribute name. Value: . '' should be non-empty"),
        (
            {"name": "x", "size": "11"},
            "Invalid input for field/attribute size. Value: 11. 11 is greater than the maximum of 10",
        ),
        ({"name": "x", "size": 0}, "Invalid input for field/attribute size. Value: 0. 0 is less than the minimum of 1"),
        ({"name": "x", "size": "z"}, "Invalid input for field/attribute size. Value: z. 'z' does not match '^[0-9]+$'"),
        (
            {"name": "x", "parts": [{"id": "nope"}]},
            "Invalid input for field/attribute id. Value: nope. 'nope' is not a 'uuid'",
        ),
    ],
)
def test_messages_name_the_field_the_value_and_what_would_do(thing: dict[str, Any], message: str) -> None:
    assert refusal(THING, Version(2, 5), {"thing": thing}) == message


@pytest.mark.parametrize("name", ["1", "007", "+1", "-1", "a/b~c"])
def test_messages_name_a_field_that_looks_like_a_number_as_it_stands(name: str) -> None:
    schema = Schema({"type": "object", "additionalProperties": {"type": "string"}})
    message = f"Invalid input for field/attribute {name}. Value: 5. 5 is not of type 'string'"
    assert refusal(schema, Version(2, 5), {name: 5}) == message


def test_the_legacy_path_strips_at_every_depth() -> None:
    value = {
        "thing": {"name": "x", "odd": 1, "parts": [{"id": "155d900f4e144e4ca73d069cbf4541e6", "odd": 1}]},
        "odd": 1,
    }
    THING.at(LEGACY).check(value)
    assert value == {"thing": {"name": "x", "parts": [{"id": "155d900f4e144e4ca73d069cbf4541e6"}]}}


def test_unknown_parameters_are_dropped_until_they_are_refused() -> None:
    query = QuerySchema(Field("a", multi({"type": "string"})), open_until="2.10")
    assert query.at(Version(2, 10)).check_query({"a": ["1", "2"], "b": ["3"]}) == {"a": ["1", "2"]}
    with pytest.raises(Invalid):
        query.at(Version(2, 11)).check_query({"b": ["3"]})


def test_one_name_twice_at_a_version_is_a_mistake_in_the_table() -> None:
    schema = Schema(Object(Field("a", {}, until="2.10"), Field("a", {}, since="2.10")))
    with pytest.raises(ValueError, match="twice"):
        schema.at(Version(2, 10))


@pytest.mark.skipif("API_DATABASE" in os.environ, reason="a server's disk is not ours to fill")
async def test_a_database_without_room_is_said_and_changes_nothing(api: Client) -> None:
    async def limit(tx: Any) -> None:
        pages = (await tx.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await tx.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    async def unlimit(tx: Any) -> None:
        await tx.exec_driver_sql("PRAGMA max_page_count = 1000000")

    await api.rt.db.write(limit)
    names: list[str] = []
    for number in range(1000):
        name = f"m{number}-" + "x" * 200
        answer = await api("POST", "/flavors", {"flavor": {"name": name, "ram": 1, "vcpus": 1, "disk": 1}})
        if answer.status_code != 200:
            break
        names.append(name)
    assert answer.status_code == 503
    assert "Nothing was changed" in answer.json()["serviceUnavailable"]["message"]
    listed = await api("GET", "/flavors?limit=1000")
    assert sorted(flavor["name"] for flavor in listed.json()["flavors"]) == sorted(names)
    await api.rt.db.write(unlimit)
    again = await api("POST", "/flavors", {"flavor": {"name": name, "ram": 1, "vcpus": 1, "disk": 1}})
    assert again.status_code == 200
