"""What stands where: both trees at all their versions, as a guest reads them."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

import pytest

from kilonova.metadata.content import EC2_VERSIONS, OPENSTACK_VERSIONS
from kilonova.runtime import Runtime
from tests.support import server_rows as rows
from tests.unit.metadata.conftest import Asking, Clock

KEY = "ssh-ed25519 AAAA me@here"
USER_DATA = b"#!/bin/sh\n\xff\x00"
SUBNET: dict[str, Any] = {
    "id": "subnet", "cidr": "10.0.0.0/24", "version": 4, "gateway": "10.0.0.1", "dns": ["192.0.2.53"], "dhcp": True,
    "ips": [{"address": "10.0.0.5", "floating": ["203.0.113.9"]}],
}  # fmt: skip
NIC: dict[str, Any] = {
    "port_id": "5d84f5f6-0000-1111-2222-333344445555", "mac": "fa:16:3e:00:00:01", "network_id": "net", "mtu": 1450,
    "vif_type": "bridge", "tag": "blue", "subnets": [SUBNET],
}  # fmt: skip
RICH: dict[str, Any] = {
    "display_name": "My server é",
    "hostname": "my-server",
    "launch_index": 3,
    "metadata": {"role": "web"},
    "key_name": "key",
    "key_type": "ssh",
    "key_data": KEY,
    "user_data": base64.b64encode(USER_DATA).decode(),
    "security_groups": [{"name": "default"}, {"name": "web"}],
    "network_info": [NIC],
    "ephemeral_gb": 1,
    "swap_mb": 64,
}
EC2_LISTING = [*EC2_VERSIONS, "latest"]
OPENSTACK_LISTING = [*OPENSTACK_VERSIONS, "latest"]
COMMON = {"ami-id", "ami-launch-index", "ami-manifest-path", "hostname", "instance-id", "local-ipv4", "reservation-id"}
EC2_SINCE = {
    "1.0": {*COMMON, "security-groups", "public-keys/"},
    "2007-01-19": {"local-hostname", "public-hostname", "public-ipv4"},
    "2007-03-01": set(),
    "2007-08-29": {"instance-type"},
    "2007-10-10": set(),
    "2007-12-15": {"block-device-mapping/"},
    "2008-02-01": {"placement/"},
    "2008-09-01": {"instance-action"},
    "2009-04-04": set(),
    "latest": set(),
}
OPENSTACK_SINCE = {
    "2012-08-10": "meta_data.json user_data",
    "2013-04-04": "meta_data.json user_data password",
    "2013-10-17": "meta_data.json user_data password vendor_data.json",
    **dict.fromkeys(
        ("2015-10-15", "2016-06-30"), "meta_data.json user_data password vendor_data.json network_data.json"
    ),
    **dict.fromkeys(
        ("2016-10-06", "2017-02-22", "2018-08-27", "2020-10-14", "2025-04-04", "latest"),
        "meta_data.json user_data password vendor_data.json network_data.json vendor_data2.json",
    ),
}
META_SINCE = {
    "2012-08-10": {"uuid", "name", "hostname", "launch_index", "availability_zone", "meta", "public_keys", "keys"},
    "2013-04-04": {"random_seed"},
    "2013-10-17": set(),
    "2015-10-15": {"project_id"},
    "2016-06-30": {"devices"},
    "2016-10-06": set(),
    "2017-02-22": set(),
    "2018-08-27": set(),
    "2020-10-14": {"dedicated_cpus"},
    "2025-04-04": set(),
    "latest": set(),
}


@pytest.mark.parametrize("path", ["/", "", "//", "/.", "/x/.."])
async def test_the_root_is_told_to_anybody(ask: Asking, path: str) -> None:
    answer = await ask.plain(path)
    assert (answer.status_code, answer.text.split("\n")) == (200, EC2_LISTING)
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/ec2", "/ec2/", "//ec2//", "/openstack/../ec2"])
async def test_versions_of_ec2(rt: Runtime, ask: Asking, path: str) -> None:
    answer = await ask(path, await rows.add(rt.db))
    assert answer.text.split("\n") == EC2_LISTING


async def test_versions_of_the_future_are_served_and_not_listed(rt: Runtime, ask: Asking, clock: Clock) -> None:
    server = await rows.add(rt.db)
    assert (await ask("/openstack", server)).text.split("\n") == OPENSTACK_LISTING
    clock.now = lambda: dt.datetime(2019, 1, 1)  # type: ignore[method-assign]  # noqa: DTZ001 - as the world has it
    assert (await ask("/openstack", server)).text.split("\n") == [
        *(version for version in OPENSTACK_VERSIONS if version < "2019"),
        "latest",
    ]
    assert (await ask("/openstack/2025-04-04/meta_data.json", server)).status_code == 200
    assert "dedicated_cpus" in (await ask("/openstack/latest/meta_data.json", server)).json()


async def test_the_ec2_tree_at_each_version(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db, **RICH)
    names: set[str] = set()
    for version, more in EC2_SINCE.items():
        names |= more
        for path in (f"/ec2/{version}", f"/{version}/"):
            assert (await ask(path, server)).text == "meta-data/\nuser-data", path
        for path in (f"/ec2/{version}/meta-data", f"/{version}//meta-data/"):
            answer = await ask(path, server)
            assert answer.text.split("\n") == sorted(names, key=lambda name: name.rstrip("/")), path
            assert answer.headers["content-type"].startswith("text/plain")
        assert (await ask(f"/{version}/user-data", server)).content == USER_DATA


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("ami-launch-index", "3"),
        ("ami-manifest-path", "FIXME"),
        ("hostname", "my-server.novalocal"),
        ("local-hostname", "my-server.novalocal"),
        ("public-hostname", "my-server.novalocal"),
        ("instance-id", "i-00000001"),
        ("local-ipv4", "10.0.0.5"),
        ("public-ipv4", "203.0.113.9"),
        ("reservation-id", "r-12345678"),
        ("security-groups", "default\nweb"),
        ("public-keys", "0=key"),
        ("public-keys/0", "openssh-key"),
        ("public-keys/0/openssh-key", KEY),
        ("instance-type", "m1.tiny"),
        ("block-device-mapping", "ami\nephemeral0\nroot\nswap"),
        ("block-device-mapping/ami", "vda"),
        ("block-device-mapping/root", "/dev/vda"),
        ("block-device-mapping/ephemeral0", "/dev/vdb"),
        ("block-device-mapping/swap", "/dev/vdc"),
        ("placement", "availability-zone"),
        ("placement/availability-zone", "nova"),
        ("instance-action", "none"),
    ],
)
async def test_what_ec2_names_hold(rt: Runtime, ask: Asking, path: str, told: str) -> None:
    server = await rows.add(rt.db, **RICH)
    for where in (f"/latest/meta-data/{path}", f"/ec2/2009-04-04/meta-data/{path}/"):
        answer = await ask(where, server)
        assert (answer.status_code, answer.text) == (200, told)


async def test_an_image_has_the_same_ec2_id_wherever_it_is_used(rt: Runtime, ask: Asking) -> None:
    other = "00000000-1111-2222-3333-444444444444"
    one, two, three = [await rows.add(rt.db, image_ref=image) for image in (rows.IMAGE, rows.IMAGE, other)]
    told = [(await ask("/latest/meta-data/ami-id", server)).text for server in (one, two, three)]
    assert told[0] == told[1] != told[2]
    assert all(len(each) == 12 and each.startswith("ami-") and int(each[4:], 16) >= 0 for each in told)


async def test_kernel_and_ramdisk_are_told_where_there_are_any(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db, kernel_id=rows.IMAGE, ramdisk_id=rows.IMAGE)
    names = (await ask("/latest/meta-data", server)).text.split("\n")
    assert {"kernel-id", "ramdisk-id"} <= set(names)
    assert (await ask("/latest/meta-data/kernel-id", server)).text.startswith("aki-")
    assert (await ask("/latest/meta-data/ramdisk-id", server)).text.startswith("ari-")
    assert (await ask("/2007-10-10/meta-data/kernel-id", server)).status_code == 404


async def test_without_an_own_address_the_caller_s_is_told(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    for address in ("10.9.9.9", "10.9.9.10"):
        assert (await ask("/latest/meta-data/local-ipv4", server, address=address)).text == address
    assert (await ask("/latest/meta-data/public-ipv4", server)).text == ""


async def test_the_openstack_tree_at_each_version(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db, **RICH)
    assert set(OPENSTACK_SINCE) == set(OPENSTACK_LISTING)
    for version, names in OPENSTACK_SINCE.items():
        assert (await ask(f"/openstack/{version}/", server)).text.split("\n") == names.split(), version
        for name in OPENSTACK_SINCE["latest"].split():
            answer = await ask(f"/openstack/{version}/{name}", server)
            there = name in names.split() or name == "network_data.json"
            assert answer.status_code == (200 if there else 404), f"{version}/{name}"
            kind = "application/json" if name.endswith(".json") and name != "network_data.json" else "text/plain"
            assert answer.headers["content-type"].startswith(kind if there else "text/plain"), name


async def test_meta_data_grows_with_the_versions(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db, **RICH)
    keys: set[str] = set()
    for version, more in META_SINCE.items():
        keys |= more
        told = (await ask(f"/openstack/{version}/meta_data.json", server)).json()
        assert set(told) == keys, version


async def test_meta_data_says_who_the_server_is(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db, **RICH)
    told = (await ask("/openstack/latest/meta_data.json", server)).json()
    assert len(base64.b64decode(told.pop("random_seed"))) == 512
    device = {"type": "nic", "bus": "none", "address": "none", "mac": NIC["mac"], "tags": ["blue"]}
    assert told == {
        "uuid": server,
        "name": "My server é",
        "hostname": "my-server.novalocal",
        "launch_index": 3,
        "availability_zone": "nova",
        "meta": {"role": "web"},
        "public_keys": {"key": KEY},
        "keys": [{"name": "key", "type": "ssh", "data": KEY}],
        "project_id": rows.PROJECT,
        "devices": [{**device, "vf_trusted": False}],
        "dedicated_cpus": [],
    }
    for version in ("2016-06-30", "2017-02-22"):
        assert (await ask(f"/openstack/{version}/meta_data.json", server)).json()["devices"] == [device]


async def test_a_bare_server_is_told_less(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    told = (await ask("/openstack/latest/meta_data.json", server)).json()
    assert not {"meta", "keys", "public_keys", "files", "admin_pass", "network_config"} & set(told)
    assert "user_data" not in (await ask("/openstack/latest", server)).text
    for path in (
        "/openstack/latest/user_data", "/latest/user-data", "/latest/meta-data/public-keys",
        "/latest/meta-data/public-keys/0", "/latest/meta-data/kernel-id",
    ):  # fmt: skip
        assert (await ask(path, server)).status_code == 404, path
    assert (await ask("/latest", server)).text == "meta-data/"
    assert (await ask("/openstack/latest/network_data.json", server)).json() == {}


async def test_user_data_comes_as_it_was(rt: Runtime, ask: Asking) -> None:
    answer = await ask("/openstack/latest/user_data", await rows.add(rt.db, **RICH))
    assert answer.content == USER_DATA


async def test_network_data_is_that_of_the_cached_ports(rt: Runtime, ask: Asking) -> None:
    answer = await ask("/openstack/latest/network_data.json", await rows.add(rt.db, **RICH))
    told = json.loads(answer.text)
    assert [link["ethernet_mac_address"] for link in told["links"]] == [NIC["mac"]]
    assert [network["type"] for network in told["networks"]] == ["ipv4_dhcp"]
    assert told["services"] == [{"type": "dns", "address": "192.0.2.53"}]


async def test_the_seed_is_another_one_each_time(rt: Runtime, ask: Asking) -> None:
    server = await rows.add(rt.db)
    told = [(await ask("/openstack/latest/meta_data.json", server)).json() for _ in range(3)]
    assert len({each.pop("random_seed") for each in told}) == 3
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize(
    "path",
    [
        "/openstack/2012-08-11",
        "/openstack/2012-08-11/meta_data.json",
        "/openstack/latest/none",
        "/openstack/latest/meta_data.json/x",
        "/openstack/latest/content/0000",
        "/openstack/content",
        "/openstack/content/",
        "/openstack/content/0000",
        "/openstack/content/0000/x",
        "/ec2/2009-04-05",
        "/2009-04-05/meta-data",
        "/latest/none",
        "/latest/meta-data/none",
        "/latest/meta-data/hostname/x",
        "/latest/meta-data/security-groups/0",
        "/latest/meta-data/public-keys/1",
        "/latest/meta-data/public-keys/0=key",
        "/latest/meta-data/public-keys/0/_name",
        "/latest/user-data/x",
        "/favicon.ico",
        "/latest/meta-data/../../../../etc/passwd",
    ],
)
async def test_what_is_nowhere_is_not_found(rt: Runtime, ask: Asking, path: str) -> None:
    assert (await ask(path, await rows.add(rt.db, **RICH))).status_code == 404


async def test_the_domain_is_the_operator_s(rt: Runtime, asking: Any) -> None:
    server = await rows.add(rt.db, hostname="h")
    for domain, told in (("example.org", "h.example.org"), ("", "h")):
        ask = asking(dhcp_domain=domain)
        assert (await ask("/latest/meta-data/hostname", server)).text == told
        assert (await ask("/openstack/latest/meta_data.json", server)).json()["hostname"] == told


async def test_a_head_has_no_body(rt: Runtime, ask: Asking) -> None:
    answer = await ask("/latest/meta-data/hostname", await rows.add(rt.db), method="HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
