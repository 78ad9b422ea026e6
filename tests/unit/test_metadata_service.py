"""The metadata service, asked over HTTP as guests and their proxies ask it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.statements import counting
from kilonova.api.app import create_app
from kilonova.errors import Invalid
from kilonova.metadata.content import EC2_VERSIONS, LATEST, OPENSTACK_VERSIONS
from kilonova.metadata.service import MetadataService
from kilonova.metadata.settings import MetadataSettings
from kilonova.metadata.signing import sign
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud, make_cloud
from kilonova.testing.identity import PROJECT, StaticTokens
from kilonova.testing.network import FakeNetworking

IMAGE = "11111111-1111-1111-1111-111111111111"
SECRET = "correct horse"
SIGNED = MetadataSettings(service_metadata_proxy=True, shared_secret=SECRET)
USER_DATA = b"#!/bin/sh\necho hello\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGnUN8ZsZdfUxHQ2PnwZRKIZqlEX3hVbACl0WD8+ffqL me"


class Guest:
    """One server of a cloud in this process, and the service that tells of it."""

    def __init__(self, cloud: TestCloud, api: Client, network: FakeNetworking, server: dict[str, Any]) -> None:
        self.cloud, self.api, self.network, self.server = cloud, api, network, server
        self.uuid = server["id"]

    @contextlib.asynccontextmanager
    async def service(
        self, settings: MetadataSettings = SIGNED, peer: str = "192.0.2.9"
    ) -> AsyncIterator[httpx.AsyncClient]:
        service = MetadataService(self.cloud.rt, settings)
        transport = httpx.ASGITransport(app=service, client=(peer, 1), raise_app_exceptions=True)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://169.254.169.254") as http:
            yield http
        await service.close()

    def headers(self, **changes: str | None) -> dict[str, str]:
        values = {
            "X-Instance-ID": self.uuid,
            "X-Tenant-ID": PROJECT,
            "X-Instance-ID-Signature": sign(SECRET, self.uuid),
            "X-Forwarded-For": "10.0.0.5",
        }
        changed = values | {name.replace("_", "-"): value for name, value in changes.items()}  # type: ignore[dict-item]
        return {name: value for name, value in changed.items() if value is not None}


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    network = FakeNetworking()
    async with make_cloud(tmp_path, network=network, synchronous="OFF") as cloud:
        cloud.images.add(IMAGE)
        net = network.add_network(project_id=PROJECT)
        transport = httpx.ASGITransport(app=create_app(cloud.rt, StaticTokens()))
        async with httpx.AsyncClient(transport=transport, base_url="http://compute.test") as http:
            api = Client(http, cloud.rt)
            await api(
                "POST", "/flavors", {"flavor": {"name": "m1", "id": "1", "ram": 512, "vcpus": 1, "disk": 1, "swap": 64}}
            )
            await api("POST", "/os-keypairs", {"keypair": {"name": "mine", "public_key": KEY}}, token="member")
            body = {
                "name": "Web One", "imageRef": IMAGE, "flavorRef": "1", "networks": [{"uuid": net["id"], "tag": "lan"}],
                "key_name": "mine", "user_data": base64.b64encode(USER_DATA).decode(), "metadata": {"role": "web"},
            }  # fmt: skip
            answer = await api("POST", "/servers", {"server": body}, token="member", version="2.90")
            assert answer.status_code == 202, answer.text
            uuid = answer.json()["server"]["id"]
            for _ in range(400):
                server = (await api("GET", f"/servers/{uuid}", version="2.90")).json()["server"]
                if server["status"] == "ACTIVE":
                    break
                await asyncio.sleep(0.02)
            yield Guest(cloud, api, network, server)


async def test_versions_are_listed_before_anybody_is_known(guest: Guest) -> None:
    async with guest.service() as http:
        root = await http.get("/")
        assert (root.status_code, root.text.splitlines()) == (200, [*EC2_VERSIONS, LATEST])
        for path in ("/ec2", "/ec2/", "//ec2//"):
            assert (await http.get(path, headers=guest.headers())).text == root.text
        listed = await http.get("/openstack", headers=guest.headers())
        assert listed.text.splitlines() == [*OPENSTACK_VERSIONS, LATEST]
        assert listed.headers["content-type"] == "text/plain"


async def test_every_version_has_what_it_lists_and_nothing_newer(guest: Guest) -> None:
    files = {
        "2012-08-10": ["meta_data.json", "user_data"],
        "2013-04-04": ["meta_data.json", "user_data", "password"],
        "2013-10-17": ["meta_data.json", "user_data", "password", "vendor_data.json"],
        "2015-10-15": ["meta_data.json", "user_data", "password", "vendor_data.json", "network_data.json"],
    }
    newest = ["meta_data.json", "user_data", "password", "vendor_data.json", "network_data.json", "vendor_data2.json"]
    async with guest.service() as http:
        for version in (*OPENSTACK_VERSIONS, LATEST):
            listed = (await http.get(f"/openstack/{version}", headers=guest.headers())).text.splitlines()
            expected = files.get(version) or (files["2015-10-15"] if version == "2016-06-30" else newest)
            assert listed == expected, version
            for name in newest:
                status = (await http.get(f"/openstack/{version}/{name}", headers=guest.headers())).status_code
                assert status == (200 if name in expected or name == "network_data.json" else 404), (version, name)
        assert (await http.get("/openstack/2011-01-01/meta_data.json", headers=guest.headers())).status_code == 404


async def test_meta_data_tells_of_the_server_and_no_secret(guest: Guest) -> None:
    async with guest.service() as http:
        answer = await http.get("/openstack/latest/meta_data.json", headers=guest.headers())
        assert answer.headers["content-type"] == "application/json"
        found = answer.json()
        again = (await http.get("/openstack/latest/meta_data.json", headers=guest.headers())).json()
        (port,) = guest.network.ports_of(guest.uuid)
        assert found["uuid"] == guest.uuid
        assert (found["name"], found["hostname"], found["project_id"]) == ("Web One", "web-one.novalocal", PROJECT)
        assert found["meta"] == {"role": "web"}
        assert found["public_keys"] == {"mine": KEY}
        assert found["devices"] == [
            {
                "type": "nic",
                "bus": "none",
                "address": "none",
                "mac": port["mac_address"],
                "tags": ["lan"],
                "vf_trusted": False,
            }
        ]
        assert "admin_pass" not in found
        assert found["random_seed"] != again["random_seed"]
        assert (await http.get("/openstack/latest/user_data", headers=guest.headers())).content == USER_DATA
        network = await http.get("/openstack/latest/network_data.json", headers=guest.headers())
        assert network.headers["content-type"] == "text/plain"
        assert [link["ethernet_mac_address"] for link in network.json()["links"]] == [port["mac_address"]]


async def test_the_ec2_tree(guest: Guest) -> None:
    (port,) = guest.network.ports_of(guest.uuid)
    async with guest.service() as http:

        async def text(path: str, status: int = 200) -> str:
            answer = await http.get(path, headers=guest.headers())
            assert answer.status_code == status, path
            return answer.text

        assert await text("/2009-04-04") == await text("/ec2/2009-04-04/") == "meta-data/\nuser-data"
        assert await text("/latest/user-data") == USER_DATA.decode()
        names = (await text("/latest/meta-data/")).splitlines()
        assert names == sorted(names)
        assert {"ami-id", "block-device-mapping/", "placement/", "public-keys/", "local-ipv4"} <= set(names)
        assert "placement/" not in (await text("/1.0/meta-data")).splitlines()
        assert await text("/latest/meta-data/local-ipv4") == port["fixed_ips"][0]["ip_address"]
        assert await text("/latest/meta-data/public-keys/") == "0=mine"
        assert await text("/latest/meta-data/public-keys/0/") == "openssh-key"
        assert await text("/latest/meta-data/public-keys/0/openssh-key") == KEY
        assert await text("/latest/meta-data/block-device-mapping") == "ami\nroot\nswap"
        assert await text("/latest/meta-data/security-groups") == "default"
        assert await text("/latest/meta-data/instance-type") == "m1"
        for path in ("/latest/meta-data/nothing", "/1999-01-01/meta-data", "/latest/other"):
            await text(path, 404)


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({}, 200, ""),
        ({"X_Instance_ID": None}, 400, "x-instance-id is missing"),
        ({"X_Instance_ID_Signature": None}, 400, "x-instance-id-signature is missing"),
        ({"X_Tenant_ID": None}, 400, "x-tenant-id is missing"),
        ({"X_Instance_ID_Signature": ""}, 403, "signature"),
        ({"X_Instance_ID_Signature": sign("another", "x")}, 403, "signature"),
        ({"X_Tenant_ID": "another"}, 404, "no such instance"),
        ({"X_Instance_ID": IMAGE, "X_Instance_ID_Signature": sign(SECRET, IMAGE)}, 404, "no such instance"),
    ],
)
async def test_who_asks_must_be_who_the_proxy_says(
    guest: Guest, changes: dict[str, str | None], status: int, word: str
) -> None:
    async with guest.service() as http:
        answer = await http.get("/openstack/latest/user_data", headers=guest.headers(**changes))
        assert answer.status_code == status
        assert word in answer.text


@pytest.mark.parametrize("name", ["X-Instance-ID", "X-Tenant-ID", "X-Instance-ID-Signature", "X-Forwarded-For"])
async def test_a_doubled_header_is_refused(guest: Guest, name: str) -> None:
    async with guest.service() as http:
        headers = [*guest.headers().items(), (name, guest.headers()[name])]
        answer = await http.get("/openstack/latest/meta_data.json", headers=headers)
        assert (answer.status_code, "several times" in answer.text) == (400, True)


async def test_another_askers_cached_answer_is_never_given(guest: Guest) -> None:
    async with guest.service() as http:
        assert (await http.get("/openstack/latest/user_data", headers=guest.headers())).status_code == 200
        stolen = guest.headers(X_Instance_ID_Signature=sign("guess", guest.uuid))
        assert (await http.get("/openstack/latest/user_data", headers=stolen)).status_code == 403
        assert (
            await http.get("/openstack/latest/user_data", headers=guest.headers(X_Tenant_ID="x"))
        ).status_code == 404


async def test_without_proxies_the_address_tells_and_headers_count_nothing(guest: Guest) -> None:
    (port,) = guest.network.ports_of(guest.uuid)
    settings = MetadataSettings()
    async with guest.service(settings, peer=port["fixed_ips"][0]["ip_address"]) as http:
        assert (await http.get("/openstack/latest/meta_data.json")).json()["uuid"] == guest.uuid
    async with guest.service(settings, peer="10.99.0.1") as http:
        assert (await http.get("/openstack/latest/meta_data.json", headers=guest.headers())).status_code == 404


async def test_behind_a_load_balancer(guest: Guest) -> None:
    (port,) = guest.network.ports_of(guest.uuid)
    for subnet in guest.network.collections["subnets"].values():
        subnet["advanced_service_providers"] = ["balancer"]
    address = port["fixed_ips"][0]["ip_address"]
    headers = {
        "X-Metadata-Provider": "balancer",
        "X-Metadata-Provider-Signature": sign(SECRET, "balancer"),
        "X-Forwarded-For": f"{address}, 192.0.2.1",
    }
    async with guest.service() as http:
        assert (await http.get("/openstack/latest/meta_data.json", headers=headers)).json()["uuid"] == guest.uuid
        for changed, status in (
            (headers | {"X-Metadata-Provider-Signature": "x"}, 403),
            ({name: value for name, value in headers.items() if name != "X-Forwarded-For"}, 400),
            (headers | {"X-Forwarded-For": "10.99.0.1"}, 400),
        ):
            assert (await http.get("/openstack/latest/meta_data.json", headers=changed)).status_code == status


async def test_one_statement_and_then_none_until_the_time_is_over(guest: Guest) -> None:
    async def ask(http: httpx.AsyncClient) -> None:
        for name in ("meta_data.json", "network_data.json", "user_data"):
            assert (await http.get(f"/openstack/latest/{name}", headers=guest.headers())).status_code == 200

    async with guest.service() as http:
        with counting(guest.cloud.rt.db) as counted:
            for _ in range(3):
                await ask(http)
        assert len(counted.data) == 1
    async with guest.service(replace(SIGNED, cache_expiration=0.0)) as http:
        with counting(guest.cloud.rt.db) as counted:
            await ask(http)
        assert len(counted.data) == 3


async def test_a_password_is_stored_once_read_and_cleared(guest: Guest) -> None:
    async with guest.service() as http:
        url, headers = "/openstack/latest/password", guest.headers()
        assert (await http.get(url, headers=headers)).text == ""
        assert (await http.post(url, content=b"x" * 1021, headers=headers)).status_code == 400
        assert (await http.put(url, content=b"x", headers=headers)).status_code == 400
        assert (await http.post(url, content=b"c2VjcmV0", headers=headers)).status_code == 200
        assert (await http.post(url, content=b"other", headers=headers)).status_code == 409
        assert (await http.get(url, headers=headers)).text == "c2VjcmV0"
        path = f"/servers/{guest.uuid}/os-server-password"
        assert (await guest.api("GET", path, token="member")).json() == {"password": "c2VjcmV0"}
        assert (await guest.api("DELETE", path, token="member")).status_code == 204
        assert (await guest.api("GET", path, token="member")).json() == {"password": ""}
        assert (await http.post("/openstack/2012-08-10/password", content=b"x", headers=headers)).status_code == 404


async def test_vendor_data_of_a_file(guest: Guest, tmp_path: Path) -> None:
    file = tmp_path / "vendor.json"
    file.write_text('{"cloud": "ours"}')
    async with guest.service(replace(SIGNED, vendordata_file=file)) as http:
        one = await http.get("/openstack/latest/vendor_data.json", headers=guest.headers())
        assert one.json() == {"cloud": "ours"}
        two = await http.get("/openstack/latest/vendor_data2.json", headers=guest.headers())
        assert two.json() == {"static": {"cloud": "ours"}}
    async with guest.service(replace(SIGNED, vendordata_providers=())) as http:
        assert (await http.get("/openstack/latest/vendor_data.json", headers=guest.headers())).status_code == 404
    file.write_text("[")
    for wrong in (replace(SIGNED, vendordata_file=file), replace(SIGNED, vendordata_providers=("Nonsense",))):
        with pytest.raises(Invalid, match="vendordata"):
            MetadataService(guest.cloud.rt, wrong)


@contextlib.asynccontextmanager
async def vendor_service(reply: bytes, delay: bool = False) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server on loopback that answers everything with `reply`; its URL, and the questions that it got."""
    asked: list[dict[str, Any]] = []
    over = asyncio.Event()
    handled: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length")
        )
        asked.append(json.loads(await reader.readexactly(length)) | {"head": head})
        with contextlib.suppress(ConnectionError):
            if delay:
                await over.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(reply), reply))
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", asked
        over.set()
        await asyncio.gather(*handled)


async def test_vendor_data_of_services_that_answer_fail_and_take_too_long(guest: Guest) -> None:
    async with (
        vendor_service(b'{"a": 1}') as (good, asked),
        vendor_service(b"no json") as (broken, _),
        vendor_service(b"{}", delay=True) as (slow, _),
        vendor_service(b'"' + b"x" * (1 << 20) + b'"') as (huge, _),
    ):
        targets = (("good", good), ("broken", broken), ("slow", slow), ("huge", huge), ("good", broken))
        settings = replace(
            SIGNED, vendordata_providers=("DynamicJSON",), vendordata_targets=targets, vendordata_read_timeout=0.5
        )
        async with guest.service(settings) as http:
            found = (await http.get("/openstack/latest/vendor_data2.json", headers=guest.headers())).json()
            assert found == {"good": {"a": 1}, "broken": {}, "slow": {}, "huge": {}}
            await http.get("/openstack/latest/vendor_data2.json", headers=guest.headers())
        (question,) = asked
        assert (question["project-id"], question["instance-id"], question["image-id"]) == (PROJECT, guest.uuid, IMAGE)
        assert question["hostname"] == "web-one"
        assert "openstack-nova-vendordata" in question["head"]
        async with guest.service(replace(settings, vendordata_failure_fatal=True)) as http:
            answer = await http.get("/openstack/latest/vendor_data2.json", headers=guest.headers())
            assert (answer.status_code, "broken" in answer.text) == (500, False)


async def test_a_deleted_server_is_nobody(guest: Guest) -> None:
    assert (await guest.api("DELETE", f"/servers/{guest.uuid}")).status_code == 204
    async with guest.service(replace(SIGNED, cache_expiration=0.0)) as http:
        async with asyncio.timeout(30):
            while (await http.get("/openstack/latest/meta_data.json", headers=guest.headers())).status_code == 200:
                await asyncio.sleep(0.05)
        assert (await http.get("/openstack/latest/meta_data.json", headers=guest.headers())).status_code == 404
