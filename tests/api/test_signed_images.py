"""Images that have to be signed: what the API refuses at once, and what hosts are told to verify."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from kilonova.api.app import create_app
from kilonova.api.policy import Policy
from kilonova.db import servers
from kilonova.errors import NotFound
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings, SignatureRules
from kilonova.testing.api import Client
from kilonova.testing.identity import StaticTokens
from tests.support import server_rows as rows
from tests.support.signing import signer

AUTHORITY = signer(name="authority", authority=True)
MADE = signer(issuer=AUTHORITY)
STRANGER = signer(name="stranger", authority=True)
IMAGE, UNSIGNED = "10000000-0000-4000-8000-000000000001", "10000000-0000-4000-8000-000000000002"
FORGOTTEN = "10000000-0000-4000-8000-000000000003"
FLAVOR = {"name": "f", "id": "f", "ram": 64, "vcpus": 1, "disk": 1}


class Certificates:
    """A key manager that shows its certificates to the member alone."""

    def __init__(self) -> None:
        self.stored = {"signing": MADE.pem, "authority": AUTHORITY.pem, "stranger": STRANGER.pem, "rubbish": b"x"}

    async def certificate(self, secret_id: str, token: str) -> bytes:
        if token != "member" or secret_id not in self.stored:
            raise NotFound("no")
        return self.stored[secret_id]


Cloud = Callable[[SignatureRules], Any]


@pytest.fixture
async def cloud(runtime: Runtime) -> AsyncIterator[Cloud]:
    clients: list[httpx.AsyncClient] = []
    images: Any = runtime.images
    data = bytes(1024)
    images.add(IMAGE, properties=MADE.properties(data, "signing"))
    images.add(UNSIGNED)
    images.add(FORGOTTEN, properties=MADE.properties(data, "gone"))

    async def make(rules: SignatureRules) -> Client:
        rt = dataclasses.replace(runtime, certificates=Certificates(), settings=ComputeSettings(signatures=rules))
        transport = httpx.ASGITransport(app=create_app(rt, StaticTokens(), policy=Policy()))
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://compute.test:8774"))
        client = Client(clients[-1], rt)
        assert (await client("POST", "/flavors", {"flavor": FLAVOR})).status_code in (200, 409)
        return client

    yield make
    for client in clients:
        await client.aclose()


def body(image: str = IMAGE, **changes: Any) -> dict[str, Any]:
    return {"server": {"name": "s", "imageRef": image, "flavorRef": "f", "networks": "none"} | changes}


STRICT = SignatureRules(verify=True, check_certificates=True, trusted=("authority",))


@pytest.mark.parametrize(
    ("rules", "asked", "token", "message"),
    [
        (SignatureRules(verify=True), body(UNSIGNED), "member", f"Image {UNSIGNED} is not signed: it has no"),
        (SignatureRules(verify=True), body(FORGOTTEN), "member", "Certificate gone could not be found"),
        (SignatureRules(verify=True), body(), "admin", "Certificate signing could not be found with your token"),
        (dataclasses.replace(STRICT, trusted=()), body(), "member", "say trusted_image_certificates"),
        (dataclasses.replace(STRICT, trusted=("stranger",)), body(), "member", "not issued by any of the trusted"),
        (STRICT, body(trusted_image_certificates=["stranger"]), "member", "not issued by any of the trusted"),
        (STRICT, body(trusted_image_certificates=["nobody"]), "member", "Certificate nobody could not be found"),
        (STRICT, body(trusted_image_certificates=["rubbish"]), "member", "Certificate rubbish is not an X.509"),
        # Whoever names certificates wants them heeded, whatever the cloud asks for.
        (SignatureRules(), body(UNSIGNED, trusted_image_certificates=["authority"]), "member", "is not signed"),
        (SignatureRules(), body(trusted_image_certificates=["stranger"]), "member", "not issued by any"),
    ],
)
async def test_what_is_not_signed_as_asked_is_refused_before_anything_changes(
    cloud: Cloud, rules: SignatureRules, asked: dict[str, Any], token: str, message: str
) -> None:
    api = await cloud(rules)
    before = await rows.contents(api.rt.db)
    answer = await api("POST", "/servers", asked, token=token, version="2.104")
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["badRequest"]["message"]
    assert await rows.contents(api.rt.db) == before


@pytest.mark.parametrize(
    ("rules", "named", "shown"),
    [
        (SignatureRules(verify=True), None, None),
        (STRICT, None, ["authority"]),
        (STRICT, ["stranger", "signing"], ["stranger", "signing"]),
        (SignatureRules(), ["authority"], ["authority"]),
    ],
)
async def test_a_signed_image_goes_to_its_host_with_what_verifies_it(
    cloud: Cloud, rules: SignatureRules, named: list[str] | None, shown: list[str] | None
) -> None:
    api = await cloud(rules)
    asked = body(**({"trusted_image_certificates": named} if named else {}))
    answer = await api("POST", "/servers", asked, token="member", version="2.104")
    assert answer.status_code == 202, answer.text
    uuid = answer.json()["server"]["id"]
    server = (await api("GET", f"/servers/{uuid}", token="member", version="2.104")).json()["server"]
    assert server["trusted_image_certificates"] == shown
    kept = await api.rt.db.read(lambda tx: servers.get(tx, uuid))
    assert kept is not None
    assert kept.image is not None
    signature = kept.image["spec"]["signature"]
    assert signature["certificate"] == MADE.pem.decode()
    assert (signature["hash_method"], signature["key_type"]) == ("SHA-256", "RSA-PSS")


async def test_nothing_is_asked_of_a_cloud_that_verifies_nothing(cloud: Cloud) -> None:
    api = await cloud(SignatureRules())
    answer = await api("POST", "/servers", body(FORGOTTEN), token="member", version="2.104")
    assert answer.status_code == 202, answer.text
    kept = await api.rt.db.read(lambda tx: servers.get(tx, answer.json()["server"]["id"]))
    assert kept is not None
    assert kept.image is not None
    assert kept.image["spec"]["signature"] is None
