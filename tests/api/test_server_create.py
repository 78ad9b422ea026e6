"""`POST /servers`: what is accepted, what it leaves behind, and what is refused with nothing changed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.db.tables import instances, operations
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages
from kilonova.testing.identity import PROJECT
from tests.support import server_rows as rows

OTHER_IMAGE = "00000000-0000-0000-0000-00000000000a"
TPM_IMAGE = "00000000-0000-0000-0000-00000000000b"


@pytest.fixture
async def ready(api: Client) -> Client:
    """Images, flavors and a key pair."""
    images = api.rt.images
    assert isinstance(images, StaticImages)
    images.add(rows.IMAGE)
    images.add(OTHER_IMAGE, status="queued")
    images.add(TPM_IMAGE, properties={"hw_tpm_model": "tpm-crb"})
    await rows.add_flavor(api.rt.db)
    await rows.add_flavor(api.rt.db, "pinned", extra_specs={"hw:cpu_policy": "mixed"})
    await rows.add_flavor(api.rt.db, "zero", root_gb=0)
    await rows.add_key(api.rt.db, "member", "mykey")
    return api


def body(**changes: Any) -> dict[str, Any]:
    """A create at 2.37 and later, with `changes`; None takes a field away."""
    server = {"name": "vm", "imageRef": rows.IMAGE, "flavorRef": "1", "networks": "none"} | changes
    return {"server": {name: value for name, value in server.items() if value is not None}}


async def created(api: Client) -> list[dict[str, Any]]:
    found = await api.rt.db.read(lambda tx: tx.execute(sa.select(instances).order_by(instances.c.id)))
    return [dict(row) for row in found.mappings()]


async def test_create_answers_with_the_server_and_submits_its_boot(ready: Client) -> None:
    answer = await ready("POST", "/servers", body(adminPass="secret"), token="member", version="2.104")
    assert answer.status_code == 202
    server = answer.json()["server"]
    (row,) = await created(ready)
    assert server == {
        "id": row["uuid"],
        "links": [
            {"rel": "self", "href": f"http://compute.test:8774/v2.1/servers/{row['uuid']}"},
            {"rel": "bookmark", "href": f"http://compute.test:8774/servers/{row['uuid']}"},
        ],
        "OS-DCF:diskConfig": "MANUAL",
        "security_groups": [{"name": "default"}],
        "adminPass": "secret",
    }
    assert answer.headers["location"] == server["links"][0]["href"]
    (operation,) = (await ready.rt.db.read(lambda tx: tx.execute(sa.select(operations)))).mappings()
    assert (operation["kind"], operation["server_uuid"]) == ("boot", row["uuid"])
    shown = (await ready("GET", f"/servers/{row['uuid']}", token="member")).json()["server"]
    assert shown["status"] == "BUILD"


async def test_every_field_of_create_reaches_the_server(ready: Client) -> None:
    wanted = body(
        key_name="mykey",
        user_data="YQ==",
        metadata={"a": "b"},
        config_drive="true",
        availability_zone="nova",
        accessIPv4="1.2.3.4",
        accessIPv6="fe80::1",
        description="words",
        hostname="host.example",
        tags=["b", "a"],
        **{"OS-DCF:diskConfig": "AUTO"},
    ) | {"os:scheduler_hints": {"unknown": "kept"}}
    answer = await ready("POST", "/servers", wanted, token="member", version="2.104")
    assert answer.status_code == 202, answer.text
    path = f"/servers/{answer.json()['server']['id']}"
    server = (await ready("GET", path, version="2.104")).json()["server"]
    expected = {
        "key_name": "mykey",
        "OS-EXT-SRV-ATTR:user_data": "YQ==",
        "metadata": {"a": "b"},
        "config_drive": "True",
        "pinned_availability_zone": "nova",
        "accessIPv4": "1.2.3.4",
        "accessIPv6": "fe80::1",
        "description": "words",
        "OS-EXT-SRV-ATTR:hostname": "host.example",
        "tags": ["a", "b"],
        "OS-DCF:diskConfig": "AUTO",
        "scheduler_hints": {"unknown": ["kept"]},
    }
    assert {name: server[name] for name in expected} == expected


async def test_before_2_19_the_name_is_the_description_too(ready: Client) -> None:
    await ready("POST", "/servers", body(networks=None), version="2.18")
    await ready("POST", "/servers", body(networks=None), version="2.19")
    assert [row["display_description"] for row in await created(ready)] == ["vm", None]


async def test_the_legacy_path_strips_names_and_passes_over_unknown_fields(ready: Client) -> None:
    path = f"/v2/{rows.PROJECT}/servers"
    answer = await ready("POST", path, body(networks=None, name="  vm  ", foo=1))
    assert answer.status_code == 202
    assert "OpenStack-API-Version" not in answer.headers
    (row,) = await created(ready)
    assert row["display_name"] == "vm"


async def test_several_at_once_are_numbered_and_may_answer_with_the_reservation(ready: Client) -> None:
    answer = await ready(
        "POST", "/servers", body(min_count="2", max_count=3, return_reservation_id=True), version="2.104"
    )
    made = await created(ready)
    assert [row["display_name"] for row in made] == ["vm-1", "vm-2", "vm-3"]
    assert answer.json() == {"reservation_id": made[0]["reservation_id"]}
    found = await ready("GET", f"/servers?reservation_id={made[0]['reservation_id']}")
    assert len(found.json()["servers"]) == 3


async def test_as_many_as_quota_allows_between_min_and_max(ready: Client) -> None:
    assert (await ready("POST", "/servers", body(min_count=1, max_count=50), version="2.104")).status_code == 202
    assert len(await created(ready)) == 10
    over = await ready("POST", "/servers", body(), version="2.104")
    assert over.status_code == 403
    assert over.json()["forbidden"]["message"].startswith("Quota exceeded for instances: Requested 1,")


@pytest.mark.parametrize("networks", ["none", "auto", []])
async def test_no_network_is_accepted_in_every_form(ready: Client, networks: Any) -> None:
    answer = await ready("POST", "/servers", body(networks=networks), token="member", version="2.104")
    assert answer.status_code == 202


async def test_the_image_as_the_one_local_disk_is_the_same_as_no_block_devices(ready: Client) -> None:
    device = {"uuid": rows.IMAGE, "source_type": "image", "destination_type": "local", "boot_index": 0}
    answer = await ready("POST", "/servers", body(block_device_mapping_v2=[device]), version="2.104")
    assert answer.status_code == 202


async def test_a_flavor_may_be_named_by_its_url(ready: Client) -> None:
    answer = await ready("POST", "/servers", body(flavorRef="http://compute.test/v2.1/flavors/1"), version="2.104")
    assert answer.status_code == 202


LOCAL = {"source_type": "image", "destination_type": "local", "uuid": rows.IMAGE, "boot_index": 0}
VOLUME = {"source_type": "volume", "destination_type": "volume", "uuid": OTHER_IMAGE, "boot_index": 0}


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"name": None}, 400, "'name' is a required property"),
        ({"name": ""}, 400, "Invalid input for field/attribute name."),
        ({"name": "x" * 256}, 400, "is too long"),
        ({"name": " x "}, 400, "Can not start or end with whitespace"),
        ({"name": 3}, 400, "3 is not of type 'string'"),
        ({"foo": 1}, 400, "'foo' was unexpected"),
        ({"flavorRef": None}, 400, "'flavorRef' is a required property"),
        ({"flavorRef": "none-such"}, 400, "Flavor none-such could not be found."),
        ({"imageRef": None}, 400, "Missing imageRef attribute"),
        ({"imageRef": ""}, 400, "Missing imageRef attribute"),
        ({"imageRef": "nope"}, 400, "field/attribute imageRef. Value: nope."),
        ({"imageRef": "00000000-0000-0000-0000-000000000000"}, 400, "Can not find requested image"),
        ({"imageRef": OTHER_IMAGE}, 400, "Image is not active"),
        ({"key_name": "none-such"}, 400, "Invalid key_name provided."),
        ({"min_count": 3, "max_count": 2}, 400, "min_count must be <= max_count"),
        ({"min_count": 0}, 400, "less than the minimum of 1"),
        ({"max_count": 2, "hostname": "one"}, 400, "Unable to allocate a single hostname to multiple instances"),
        ({"availability_zone": "none-such"}, 400, "The requested availability zone is not available"),
        ({"availability_zone": "a:b:c:d"}, 400, "Unable to parse availability_zone"),
        ({"metadata": {"k": 1}}, 400, "1 is not of type 'string'"),
        ({"metadata": {"k" * 256: "v"}}, 400, "field/attribute metadata"),
        ({"metadata": {f"k{number}": "v" for number in range(129)}}, 403, "number of metadata items exceeds 128"),
        ({"user_data": "A" * 65536}, 400, "is too long"),
        ({"config_drive": "maybe"}, 400, "field/attribute config_drive. Value: maybe."),
        ({"tags": ["a/b"]}, 400, "field/attribute 0. Value: a/b."),
        ({"tags": [str(number) for number in range(51)]}, 400, "is too long"),
        ({"accessIPv4": "nope"}, 400, "'nope' is not a 'ipv4'"),
        ({"networks": None}, 400, "'networks' is a required property"),
        ({"networks": "some"}, 400, "field/attribute networks. Value: some."),
        ({"networks": [{"uuid": OTHER_IMAGE}]}, 400, "this cloud has no Networking service"),
        ({"networks": [{"port": OTHER_IMAGE}]}, 400, "this cloud has no Networking service"),
        ({"networks": [{"port": OTHER_IMAGE}, {"port": OTHER_IMAGE}]}, 400, "was specified twice"),
        ({"networks": [{"port": OTHER_IMAGE, "fixed_ip": "1.2.3.4"}]}, 400, "Specified Fixed IP '1.2.3.4'"),
        ({"networks": [{}]}, 400, "Bad network format: missing 'uuid'"),
        ({"security_groups": [{"name": "web"}]}, 400, "Security group web not found"),
        ({"trusted_image_certificates": ["one"]}, 400, "is not signed: it has no img_signature"),
        ({"block_device_mapping": [{"volume_id": OTHER_IMAGE}]}, 501, "not available in this release"),
        ({"block_device_mapping_v2": [VOLUME]}, 501, "not available in this release"),
        ({"block_device_mapping_v2": [{**LOCAL, "tag": "root"}]}, 501, "tag of a disk"),
        ({"block_device_mapping_v2": [VOLUME], "imageRef": None}, 501, "not available in this release"),
        (
            {"block_device_mapping_v2": [{"source_type": "blank", "destination_type": "local"}]},
            501,
            "not available in this release",
        ),
        (
            {"block_device_mapping_v2": [VOLUME], "block_device_mapping": [{"volume_id": OTHER_IMAGE}]},
            400,
            "Using different block_device_mapping syntaxes is not allowed in the same request.",
        ),
        ({"host": "host-1"}, 403, "compute:servers:create:requested_destination"),
        ({"availability_zone": "nova:host-1"}, 403, "os_compute_api:servers:create:forced_host"),
        ({"flavorRef": "zero"}, 403, "Only volume-backed servers are allowed for flavors with zero disk."),
        ({"flavorRef": "pinned"}, 400, "cpu_policy=mixed cannot be honoured; accepted here: shared, dedicated"),
        ({"imageRef": TPM_IMAGE}, 400, "image property hw_tpm_model=tpm-crb cannot be honoured"),
    ],
)  # fmt: skip
async def test_a_refused_create_says_why_and_changes_nothing(
    ready: Client, changes: dict[str, Any], status: int, message: str
) -> None:
    before = await rows.contents(ready.rt.db)
    answer = await ready("POST", "/servers", body(**changes), token="member", version="2.104")
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert error["code"] == status
    assert message in error["message"]
    assert await rows.contents(ready.rt.db) == before


@pytest.mark.parametrize(
    ("hints", "status"),
    [
        ({"group": OTHER_IMAGE}, 400),
        ({"group": "nope"}, 400),
        ({"query": '["=", "$host", "a"]'}, 400),
        ({"build_near_host_ip": "192.0.2.1", "cidr": "/99"}, 400),
        ({"target_cell": "a!b"}, 501),
    ],
)
async def test_hints_that_cannot_be_heeded_are_refused(ready: Client, hints: dict[str, Any], status: int) -> None:
    for key in ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"):
        answer = await ready("POST", "/servers", body() | {key: hints}, version="2.104")
        assert answer.status_code == status
    assert await created(ready) == []


@pytest.mark.parametrize(
    ("field", "value", "since"),
    [
        ("description", "words", 19),
        ("tags", ["a"], 52),
        ("host", "host-1", 74),
        ("hypervisor_hostname", "host-1", 74),
        ("hostname", "name", 90),
        ("trusted_image_certificates", ["a"], 63),
    ],
)
async def test_fields_are_unknown_before_their_version(ready: Client, field: str, value: Any, since: int) -> None:
    answer = await ready("POST", "/servers", body(**{field: value}), token="member", version=f"2.{max(since - 1, 1)}")
    message = answer.json()["badRequest"]["message"]
    assert f"'{field}' was unexpected" in message


async def test_personality_went_at_2_57(ready: Client) -> None:
    files = [{"path": "/a", "contents": "YQ=="}]
    assert (await ready("POST", "/servers", body(personality=files), version="2.56")).status_code == 202
    assert (await ready("POST", "/servers", body(personality=files), version="2.57")).status_code == 400


async def test_readers_may_not_create(ready: Client) -> None:
    answer = await ready("POST", "/servers", body(), token="reader", version="2.104")
    assert answer.status_code == 403
    assert await created(ready) == []


async def test_administrators_may_name_the_host_in_one_way_only(ready: Client) -> None:
    unknown = await ready("POST", "/servers", body(host="none-such"), version="2.104")
    assert unknown.json()["badRequest"]["message"] == "Compute host none-such could not be found."
    both = await ready("POST", "/servers", body(host="a", availability_zone="nova:b"), version="2.104")
    assert "mutually exclusive" in both.json()["badRequest"]["message"]


async def test_counts_beyond_all_measure_cost_nothing(ready: Client) -> None:
    async def asked(**counts: Any) -> tuple[int, str]:
        async with asyncio.timeout(30):
            answer = await ready("POST", "/servers", body(**counts), token="member", version="2.104")
        return answer.status_code, answer.text

    assert (await asked(min_count=10**11))[0] == 403
    assert (await asked(max_count=10**11))[0] == 202
    assert len(await created(ready)) == 10
    for huge in (10**30, "9" * 6000):
        assert (await asked(max_count=huge))[0] == 403
    limits = {"instances": -1, "cores": -1, "ram": -1}
    assert (await ready("PUT", f"/os-quota-sets/{PROJECT}", {"quota_set": limits})).status_code == 200
    status, text = await asked(min_count=1001)
    assert (status, "one request makes at most 1000" in text) == (400, True)
    assert len(await created(ready)) == 10
