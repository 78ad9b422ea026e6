"""Flavors over HTTP: lists, management, access and extra specs."""

from __future__ import annotations

from typing import Any

import pytest

from kilonova.api.fields import Out, View
from kilonova.api.versions import Version
from kilonova.testing.api import Client
from kilonova.testing.identity import PROJECT


async def make(api: Client, name: str, **fields: Any) -> dict[str, Any]:
    body = {"flavor": {"name": name, "id": name, "ram": 512, "vcpus": 1, "disk": 1} | fields}
    answer = await api("POST", "/flavors", body)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()["flavor"]
    return shown


async def names(api: Client, query: str = "", **options: Any) -> list[str]:
    answer = await api("GET", f"/flavors{query}", **options)
    assert answer.status_code == 200, answer.text
    return [flavor["name"] for flavor in answer.json()["flavors"]]


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("2.1", {"swap": "", "OS-FLV-DISABLED:disabled": False, "rxtx_factor": 1.0}),
        ("2.54", {"swap": "", "OS-FLV-DISABLED:disabled": False, "rxtx_factor": 1.0}),
        ("2.55", {"swap": "", "OS-FLV-DISABLED:disabled": False, "rxtx_factor": 1.0, "description": None}),
        (
            "2.61",
            {"swap": "", "OS-FLV-DISABLED:disabled": False, "rxtx_factor": 1.0, "description": None, "extra_specs": {}},
        ),
        (
            "2.75",
            {"swap": 0, "OS-FLV-DISABLED:disabled": False, "rxtx_factor": 1.0, "description": None, "extra_specs": {}},
        ),
        ("2.102", {"swap": 0, "description": None, "extra_specs": {}}),
    ],
)
async def test_a_flavor_shows_what_its_version_has(api: Client, version: str, shown: dict[str, Any]) -> None:
    await make(api, "f")
    answer = await api("GET", "/flavors/f", version=version)
    assert answer.json()["flavor"] == shown | {
        "id": "f",
        "name": "f",
        "ram": 512,
        "vcpus": 1,
        "disk": 1,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "os-flavor-access:is_public": True,
        "links": [
            {"rel": "self", "href": "http://compute.test:8774/v2.1/flavors/f"},
            {"rel": "bookmark", "href": "http://compute.test:8774/flavors/f"},
        ],
    }


async def test_links_carry_the_project_when_the_path_does(api: Client) -> None:
    await make(api, "f")
    answer = await api("GET", f"/v2/{PROJECT}/flavors/f")
    assert [link["href"] for link in answer.json()["flavor"]["links"]] == [
        f"http://compute.test:8774/v2/{PROJECT}/flavors/f",
        f"http://compute.test:8774/{PROJECT}/flavors/f",
    ]


async def test_extra_specs_are_shown_only_where_policy_shows_them(api: Client) -> None:
    await make(api, "f")
    shown = await api("GET", "/flavors/f", token="nobody", version="2.61")
    assert "extra_specs" not in shown.json()["flavor"]


async def test_a_page_ends_with_a_link_to_the_next(api: Client) -> None:
    for name in "abc":
        await make(api, name)
    answer = await api("GET", "/flavors/detail?limit=2&sort_key=name")
    assert [flavor["name"] for flavor in answer.json()["flavors"]] == ["a", "b"]
    assert answer.json()["flavors_links"] == [
        {"rel": "next", "href": "http://compute.test:8774/v2.1/flavors/detail?limit=2&sort_key=name&marker=b"}
    ]
    last = await api("GET", "/flavors/detail?limit=2&marker=b&sort_key=name")
    assert [flavor["name"] for flavor in last.json()["flavors"]] == ["c"]
    assert "flavors_links" not in last.json()
    assert (await api("GET", "/flavors?limit=0")).json() == {"flavors": []}


@pytest.mark.parametrize("key", ["ram", "memory_mb", "description", "updated_at", "vcpu_weight", "name"])
async def test_pages_in_any_order_show_every_flavor_once(api: Client, key: str) -> None:
    for number, name in enumerate("dacb"):
        await make(api, name, ram=512 + number // 2)
    await api("PUT", "/flavors/a", {"flavor": {"description": "x"}}, version="2.55")
    if key == "ram":
        assert (await api("GET", "/flavors?sort_key=ram")).status_code == 400
        return
    for direction in ("asc", "desc"):
        seen: list[str] = []
        marker = ""
        while page := await names(api, f"?limit=1&sort_key={key}&sort_dir={direction}{marker}"):
            seen += page
            marker = f"&marker={page[-1]}"
        assert sorted(seen) == ["a", "b", "c", "d"]
        assert seen == await names(api, f"?sort_key={key}&sort_dir={direction}")


async def test_filters_narrow_a_list(api: Client) -> None:
    await make(api, "small", ram=64, disk=0)
    await make(api, "large", ram=4096, disk=50)
    assert await names(api, "?minRam=1000") == ["large"]
    assert await names(api, "?minDisk=1") == ["large"]
    assert await names(api, "?name=^sm", version="2.102") == ["small"]
    for query in ("minRam=x", "minDisk=", "is_public=maybe", "marker=nope"):
        assert (await api("GET", f"/flavors?{query}")).status_code == 400
    assert (await api("GET", "/flavors?name=(", version="2.102")).status_code == 400


async def test_private_flavors_are_for_those_with_access(api: Client) -> None:
    await make(api, "secret", **{"os-flavor-access:is_public": False})
    await make(api, "open")
    assert await names(api, token="member") == ["open"]
    assert await names(api) == ["open"]
    assert await names(api, "?is_public=none") == ["open", "secret"]
    assert await names(api, "?is_public=false") == ["secret"]
    assert await names(api, "?is_public=none", token="member") == ["open"]
    assert (await api("GET", "/flavors/secret", token="member")).status_code == 404
    assert (await api("GET", "/flavors/secret/os-flavor-access")).json() == {"flavor_access": []}

    added = await api("POST", "/flavors/secret/action", {"addTenantAccess": {"tenant": PROJECT}})
    assert added.json() == {"flavor_access": [{"flavor_id": "secret", "tenant_id": PROJECT}]}
    again = await api("POST", "/flavors/secret/action", {"addTenantAccess": {"tenant": PROJECT}})
    assert again.status_code == 409
    assert await names(api, token="member") == ["open", "secret"]
    assert await names(api, token="other") == ["open"]
    assert (await api("GET", "/flavors/secret", token="member")).status_code == 200

    removed = await api("POST", "/flavors/secret/action", {"removeTenantAccess": {"tenant": PROJECT}})
    assert removed.json() == {"flavor_access": []}
    assert (await api("POST", "/flavors/secret/action", {"removeTenantAccess": {"tenant": PROJECT}})).status_code == 404
    assert await names(api, token="member") == ["open"]


async def test_access_to_a_public_flavor_is_refused_from_2_7(api: Client) -> None:
    await make(api, "open")
    body = {"addTenantAccess": {"tenant": "p"}}
    assert (await api("POST", "/flavors/open/action", body, version="2.7")).status_code == 409
    assert (await api("POST", "/flavors/open/action", body, version="2.6")).status_code == 200
    assert (await api("GET", "/flavors/open/os-flavor-access")).status_code == 404


async def test_names_and_ids_are_taken_once(api: Client) -> None:
    await make(api, "f")
    same_name = await api("POST", "/flavors", {"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1}})
    assert (same_name.status_code, same_name.json()["conflictingRequest"]["message"]) == (
        409,
        "Flavor with name f already exists.",
    )
    same_id = await api("POST", "/flavors", {"flavor": {"name": "g", "id": "f", "ram": 1, "vcpus": 1, "disk": 1}})
    assert same_id.json()["conflictingRequest"]["message"] == "Flavor with ID f already exists."


async def test_a_deleted_flavor_is_gone_with_its_access(api: Client) -> None:
    await make(api, "f", **{"os-flavor-access:is_public": False})
    await api("POST", "/flavors/f/action", {"addTenantAccess": {"tenant": PROJECT}})
    deleted = await api("DELETE", "/flavors/f")
    assert (deleted.status_code, deleted.content) == (202, b"")
    assert (await api("DELETE", "/flavors/f")).status_code == 404
    await make(api, "f", **{"os-flavor-access:is_public": False})
    assert (await api("GET", "/flavors/f/os-flavor-access")).json() == {"flavor_access": []}


@pytest.mark.parametrize("token", ["member", "reader", "manager"])
async def test_management_is_for_administrators(api: Client, token: str) -> None:
    await make(api, "f")
    for method, path, body in [
        ("POST", "/flavors", {"flavor": {"name": "g", "ram": 1, "vcpus": 1, "disk": 1}}),
        ("PUT", "/flavors/f", {"flavor": {"description": "x"}}),
        ("DELETE", "/flavors/f", None),
        ("POST", "/flavors/f/os-extra_specs", {"extra_specs": {"a": "b"}}),
        ("POST", "/flavors/f/action", {"addTenantAccess": {"tenant": "p"}}),
        ("GET", "/flavors/f/os-flavor-access", None),
    ]:
        answer = await api(method, path, body, token=token, version="2.55")
        assert answer.status_code == 403, path
        assert answer.json()["forbidden"]["message"].startswith("Policy doesn't allow os_compute_api:os-flavor-")


async def test_the_legacy_path_drops_what_it_does_not_know_and_strips_names(api: Client) -> None:
    body = {"flavor": {"name": " f ", "id": "f", "ram": 1, "vcpus": 1, "disk": 1, "unknown": 1}, "more": 2}
    answer = await api("POST", f"/v2/{PROJECT}/flavors", body, version="2.55")
    assert answer.status_code == 200
    assert answer.json()["flavor"]["name"] == "f"
    assert "description" not in answer.json()["flavor"]
    assert "openstack-api-version" not in answer.headers
    assert (await api("POST", "/flavors", body)).status_code == 400


async def test_unknown_parameters_are_refused_from_2_75_in_lists_and_2_102_elsewhere(api: Client) -> None:
    await make(api, "f")
    for path, first in (("/flavors", "2.75"), ("/flavors/f", "2.102"), ("/flavors/f/os-extra_specs", "2.102")):
        before = f"2.{int(first.split('.')[1]) - 1}"
        assert (await api("GET", f"{path}?foo=1", version=before)).status_code == 200
        refused = await api("GET", f"{path}?foo=1", version=first)
        assert refused.json()["badRequest"]["message"] == (
            "Additional properties are not allowed ('foo' was unexpected)"
        )


async def test_extra_specs_are_strings_that_come_and_go(api: Client) -> None:
    await make(api, "f")
    path = "/flavors/f/os-extra_specs"
    made = await api("POST", path, {"extra_specs": {"a": "1", "n": 2.5}})
    assert made.json() == {"extra_specs": {"a": "1", "n": 2.5}}
    assert (await api("GET", path, token="reader")).json() == {"extra_specs": {"a": "1", "n": "2.5"}}
    assert (await api("PUT", f"{path}/a", {"a": "3"})).json() == {"a": "3"}
    assert (await api("GET", f"{path}/a")).json() == {"a": "3"}
    assert (await api("PUT", f"{path}/a", {"b": "3"})).status_code == 400
    assert (await api("PUT", f"{path}/a", {"a": "3", "b": "4"})).status_code == 400
    assert (await api("DELETE", f"{path}/a")).status_code == 200
    assert (await api("DELETE", f"{path}/a")).status_code == 404
    assert (await api("GET", f"{path}/a")).status_code == 404


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"hw:cpu_policy": "bogus"}, "'bogus' is not one of: dedicated, shared, mixed."),
        ({"hw:numa_nodes": "0"}, "'0' is less than the min value of '1'."),
        ({"hw:redirected_usb_ports": "16"}, "'16' is greater than the max value of '15'."),
        ({"hw_rng:allowed": "perhaps"}, "'perhaps' is not a valid boolean-like value."),
        ({"quota:cpu_shares": "many"}, "'many' is not a valid integer value."),
        ({"hw:mem_page_size": "huge"}, "'huge' is not of the format"),
        ({"hw:nothing": "x"}, "extra spec 'hw:nothing' does not appear to be a valid extra spec."),
        ({"trait:NO_SUCH_TRAIT": "required"}, "does not appear to be a valid extra spec."),
        ({"resources:NO_SUCH": "1"}, "does not appear to be a valid extra spec."),
    ],
)
async def test_known_extra_specs_take_known_values_from_2_86(api: Client, specs: dict[str, str], message: str) -> None:
    await make(api, "f")
    refused = await api("POST", "/flavors/f/os-extra_specs", {"extra_specs": specs}, version="2.86")
    assert refused.status_code == 400
    assert message in refused.json()["badRequest"]["message"]
    assert (await api("POST", "/flavors/f/os-extra_specs", {"extra_specs": specs}, version="2.85")).status_code == 200


async def test_good_extra_specs_pass_the_check(api: Client) -> None:
    await make(api, "f")
    specs = {
        "hw:cpu_policy": "dedicated",
        "hw:cpu_dedicated_mask": "0-3,^2", "hw:numa_cpus.0": "0,1", "hw:numa_mem.1": "512",
        "trait:HW_CPU_X86_AVX2": "required", "trait_1:CUSTOM_X": "forbidden", "resources2:VCPU": "4",
        "capabilities:cpu_info:features": "<in> avx", "aggregate_instance_extra_specs:ssd": "true", "own:word": "x",
        "plain": "y",
    }  # fmt: skip
    answer = await api("POST", "/flavors/f/os-extra_specs", {"extra_specs": specs}, version="2.86")
    assert answer.status_code == 200, answer.text


async def test_a_list_takes_one_statement_whatever_its_length(api: Client) -> None:
    for number in range(12):
        await make(api, f"f{number}")
    for token in ("admin", "member"):
        before = api.rt.db.statements
        assert len(await names(api, token=token)) == 12
        assert api.rt.db.statements - before == 1


def test_a_view_takes_attributes_and_functions() -> None:
    class Row:
        a = 1

    view = View(Out("x", "a", until="2.10"), Out("x", lambda row, env: row.a + env, since="2.11"))
    assert view.at(Version(2, 10))(Row(), 5) == {"x": 1}
    assert view.at(Version(2, 11))(Row(), 5) == {"x": 6}
    with pytest.raises(ValueError, match="attribute"):
        View(Out("x", "a()")).at(Version(2, 1))
