"""Microversion negotiation and version documents, byte for byte what clients rely on."""

from __future__ import annotations

import pytest

from kilonova.api.versions import MAX, MIN
from kilonova.testing.api import Client


async def test_root_lists_both_versions_without_a_token(api: Client) -> None:
    answer = await api("GET", "/", token=None)
    assert answer.status_code == 200
    assert answer.json() == {
        "versions": [
            {
                "id": "v2.0",
                "status": "DEPRECATED",
                "version": "",
                "min_version": "",
                "updated": "2025-07-04T12:00:00Z",
                "links": [{"rel": "self", "href": "http://compute.test:8774/v2/"}],
            },
            {
                "id": "v2.1",
                "status": "CURRENT",
                "version": str(MAX),
                "min_version": str(MIN),
                "updated": "2013-07-23T11:33:21Z",
                "links": [{"rel": "self", "href": "http://compute.test:8774/v2.1/"}],
            },
        ]
    }
    assert "x-compute-request-id" not in answer.headers


@pytest.mark.parametrize("path", ["/v2.1", "/v2.1/"])
async def test_version_document_needs_no_token_and_carries_the_version(api: Client, path: str) -> None:
    answer = await api("GET", path, token=None, version="2.53")
    assert answer.status_code == 200
    document = answer.json()["version"]
    assert (document["id"], document["version"], document["min_version"]) == ("v2.1", "2.104", "2.1")
    assert document["links"][0] == {"rel": "self", "href": "http://compute.test:8774/v2.1/"}
    assert answer.headers["openstack-api-version"] == "compute 2.53"


async def test_legacy_document_has_no_version_headers(api: Client) -> None:
    answer = await api("GET", "/v2/", token=None, version="2.53")
    assert answer.json()["version"]["id"] == "v2.0"
    assert "openstack-api-version" not in answer.headers
    assert "vary" not in answer.headers
    assert answer.headers["x-compute-request-id"].startswith("req-")


async def test_any_other_path_offers_choices(api: Client) -> None:
    answer = await api.http.get("/v3/servers")
    assert answer.status_code == 300
    assert [choice["links"][0]["href"] for choice in answer.json()["choices"]] == [
        "http://compute.test:8774/v2/v3/servers",
        "http://compute.test:8774/v2.1/v3/servers",
    ]


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({}, "2.1"),
        ({"OpenStack-API-Version": "compute 2.10"}, "2.10"),
        ({"OpenStack-API-Version": "compute 2.10, identity 3.0"}, "2.10"),
        ({"OpenStack-API-Version": "identity 3.0,compute 2.10"}, "2.10"),
        ({"OpenStack-API-Version": "identity 3.0"}, "2.1"),
        ({"OpenStack-API-Version": "2.10"}, "2.1"),
        ({"OpenStack-API-Version": "compute"}, "2.1"),
        ({"OpenStack-API-Version": "compute latest"}, "2.104"),
        ({"X-OpenStack-Nova-API-Version": "2.5"}, "2.5"),
        ({"X-OpenStack-Nova-API-Version": "latest"}, "2.104"),
        ({"OpenStack-API-Version": ""}, "2.1"),
        ({"OpenStack-API-Version": "compute 2.3,compute 2.4"}, "2.4"),
        ({"OpenStack-API-Version": "Compute 2.3"}, "2.3"),
        ({"X-OpenStack-Nova-API-Version": "2.5", "OpenStack-API-Version": "compute 2.10"}, "2.10"),
        ({"X-OpenStack-Nova-API-Version": "2.5", "OpenStack-API-Version": "identity 3.0"}, "2.5"),
    ],
)
async def test_version_asked_for_is_served_and_named(api: Client, headers: dict[str, str], served: str) -> None:
    answer = await api("GET", "/versions/v2.1", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["openstack-api-version"] == f"compute {served}"
    assert answer.headers["x-openstack-nova-api-version"] == served
    assert answer.headers.get_list("vary") == ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
    assert answer.headers["x-openstack-request-id"] == answer.headers["x-compute-request-id"]


@pytest.mark.parametrize("asked", ["2.105", "2.0", "3.1", "1.1", "2.999999999"])
async def test_version_that_is_not_served_is_406(api: Client, asked: str) -> None:
    answer = await api("GET", "/versions/v2.1", version=asked)
    assert answer.status_code == 406
    assert answer.json() == {
        "computeFault": {
            "code": 406,
            "message": f"Version {asked} is not supported by the API. Minimum is 2.1 and maximum is 2.104.",
        }
    }
    assert answer.headers["x-openstack-nova-api-version"] == asked


@pytest.mark.parametrize("asked", ["abc", "LATEST", "2", "2.01", "2.1.1", "-2.1", "2.3 x"])
async def test_what_is_no_version_is_400(api: Client, asked: str) -> None:
    answer = await api("GET", "/versions/v2.1", version=asked)
    assert answer.status_code == 400
    assert answer.json()["badRequest"]["message"] == (
        f"API Version String {asked} is of invalid format. Must be of format MajorNum.MinorNum."
    )
    assert "openstack-api-version" not in answer.headers


async def test_an_empty_old_header_is_no_version(api: Client) -> None:
    answer = await api("GET", "/versions/v2.1", headers={"X-OpenStack-Nova-API-Version": ""})
    assert answer.status_code == 400


async def test_missing_token_is_401_and_says_where_to_get_one(api: Client) -> None:
    answer = await api("GET", "/versions/v2.1", token=None)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == 401
    assert answer.headers["www-authenticate"].startswith("Keystone uri=")


@pytest.mark.parametrize("token", [b"caf\xc3\xa9", b"a b\x7f"])
async def test_token_that_can_be_none_is_401(api: Client, token: bytes) -> None:
    answer = await api.http.get("/v2.1/versions/v2.1", headers=[(b"X-Auth-Token", token)])
    assert answer.status_code == 401


async def test_token_of_no_project_is_403(api: Client) -> None:
    answer = await api("GET", "/versions/v2.1", token="unscoped")
    assert answer.status_code == 403
    assert "project" in answer.json()["forbidden"]["message"]


async def test_unknown_path_method_and_trailing_slash_are_404(api: Client) -> None:
    for method, path in [
        ("GET", "/foo"),
        ("DELETE", "/versions/v2.1"),
        ("GET", "/versions/v2.1/"),
        ("GET", "/versions"),
    ]:
        answer = await api(method, path)
        assert answer.status_code == 404, path
        assert answer.json() == {"itemNotFound": {"code": 404, "message": "The resource could not be found."}}


async def test_project_in_path_must_be_the_callers(api: Client) -> None:
    good = await api("GET", "/6f70656e737461636b20342065766572/versions/v2.1")
    assert good.status_code == 200
    bad = await api("GET", "/00000000000000000000000000000000/versions/v2.1")
    assert bad.status_code == 400
    assert bad.json()["badRequest"]["message"].startswith("Malformed request URL: URL's project_id '0000")


async def test_body_over_the_limit_is_413(api: Client) -> None:
    answer = await api("POST", "/versions/v2.1", {"x": "y" * 114688})
    assert answer.status_code == 413
    assert "114688" in answer.json()["overLimit"]["message"]


async def test_content_type_of_something_else_is_415(api: Client) -> None:
    answer = await api("GET", "/versions/v2.1", headers={"Content-Type": "text/xml"})
    assert answer.status_code == 415
    assert answer.json()["badMediaType"]["message"] == "Unsupported Content-Type"


async def test_healthcheck_asks_the_database(api: Client) -> None:
    answer = await api("GET", "/healthcheck", token=None)
    assert (answer.status_code, answer.text) == (200, "OK")
