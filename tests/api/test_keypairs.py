"""Key pairs over HTTP."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import pkcs12

from kilonova.settings import ComputeSettings
from kilonova.testing.api import Client

RSA = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDx8nkQv/zgGgB4rMYmIf+6A4l6Rr+o/6lHBQdW5aYd44bd8JttDCE/F/pNRr0lRE+PiqSPO8nD"
    "PHw0010JeMH9gYgnnFlyY3/OcJ02RhIPyyxYpv9FhY+2YiUkpwFOcLImyrxEsYXpD/0d3ac30bNH6Sw9JD9UZHYcpSxsIbECHw== me"
)
FINGERPRINT = "1e:2c:9b:56:79:4b:45:77:f9:ca:7a:98:2c:b0:d5:3c"


async def put(api: Client, name: str, *, version: str | None = None, token: str = "member", **fields: str) -> int:
    body = {"keypair": {"name": name, "public_key": RSA} | fields}
    return (await api("POST", "/os-keypairs", body, version=version, token=token)).status_code


async def test_an_imported_key_is_known_by_its_fingerprint(api: Client) -> None:
    body = {"keypair": {"name": "k", "public_key": RSA}}
    made = await api("POST", "/os-keypairs", body, token="member")
    assert made.status_code == 200
    assert made.json() == {"keypair": {"name": "k", "public_key": RSA, "fingerprint": FINGERPRINT, "user_id": "member"}}
    shown = (await api("GET", "/os-keypairs/k", token="member", version="2.2")).json()["keypair"]
    assert shown.pop("created_at").count(":") == 2
    assert shown == {
        "name": "k", "public_key": RSA, "fingerprint": FINGERPRINT, "user_id": "member", "type": "ssh", "id": 1,
        "deleted": False, "deleted_at": None, "updated_at": None,
    }  # fmt: skip


async def test_status_codes_change_at_2_2(api: Client) -> None:
    assert await put(api, "a", version="2.1") == 200
    assert await put(api, "b", version="2.2") == 201
    assert (await api("DELETE", "/os-keypairs/a", token="member", version="2.1")).status_code == 202
    deleted = await api("DELETE", "/os-keypairs/b", token="member", version="2.2")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await api("DELETE", "/os-keypairs/b", token="member")).status_code == 404


async def test_a_made_key_opens_with_its_private_part(api: Client) -> None:
    made = await api("POST", "/os-keypairs", {"keypair": {"name": "k"}}, token="member", version="2.91")
    pair = made.json()["keypair"]
    private = serialization.load_pem_private_key(pair["private_key"].encode(), password=None)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert pair["public_key"] == f"{public.decode()} Generated-by-Nova"
    assert "private_key" not in (await api("GET", "/os-keypairs/k", token="member")).json()["keypair"]
    missing = await api("POST", "/os-keypairs", {"keypair": {"name": "l"}}, token="member", version="2.92")
    assert "'public_key' is a required property" in missing.json()["badRequest"]["message"]


async def test_a_made_certificate_names_its_user(api: Client) -> None:
    body = {"keypair": {"name": "k", "type": "x509"}}
    pair = (await api("POST", "/os-keypairs", body, token="member", version="2.2")).json()["keypair"]
    assert pair["type"] == "x509"
    certificate = x509.load_pem_x509_certificate(pair["public_key"].encode())
    assert certificate.subject.rfc4514_string() == "CN=member"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert b"member@localhost" in names.get_values_for_type(x509.OtherName)[0].value
    key, inside, _ = pkcs12.load_key_and_certificates(base64.b64decode(pair["private_key"]), None)
    assert inside == certificate
    assert key is not None
    again = {"keypair": {"name": "l", "type": "x509", "public_key": pair["public_key"]}}
    imported = await api("POST", "/os-keypairs", again, token="member", version="2.2")
    assert imported.json()["keypair"]["fingerprint"] == pair["fingerprint"]
    assert pair["fingerprint"] == certificate.fingerprint(hashes.SHA1()).hex(":")


async def test_other_kinds_of_ssh_keys_are_taken(api: Client) -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    assert await put(api, "ed", public_key=text) == 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"public_key": "junk"}, "Keypair data is invalid: failed to generate fingerprint"),
        ({"public_key": "ssh-rsa AAAA x"}, "Keypair data is invalid"),
        ({"public_key": ""}, "Keypair data is invalid"),
        ({"type": "x509"}, "Keypair data is invalid: failed to generate X509 fingerprint"),
        ({"type": "dsa"}, "'dsa' is not one of ['ssh', 'x509']"),
        ({"name": "a!b"}, "does not match"),
        ({"name": " a"}, "An invalid 'name' value was provided."),
        ({"name": ""}, "should be non-empty"),
        ({"name": "x" * 256}, "is too long"),
        ({"user_id": "x" * 256}, "is too long"),
    ],
)
async def test_bad_keys_and_names_are_refused(api: Client, fields: dict[str, str], message: str) -> None:
    body = {"keypair": {"name": "k", "public_key": RSA} | fields}
    answer = await api("POST", "/os-keypairs", body, version="2.10")
    assert answer.status_code == 400
    assert message in answer.json()["badRequest"]["message"]


async def test_names_may_hold_at_and_dot_from_2_92(api: Client) -> None:
    assert await put(api, "a@b.c", version="2.91") == 400
    assert await put(api, "a@b.c", version="2.92") == 201
    assert (await api("GET", "/os-keypairs/a@b.c", token="member", version="2.92")).status_code == 200


async def test_a_name_is_taken_once_per_user(api: Client) -> None:
    assert await put(api, "k") == 200
    assert await put(api, "k") == 409
    assert await put(api, "k", token="reader") == 200


async def test_an_administrator_acts_for_others_from_2_10(api: Client) -> None:
    assert await put(api, "k", token="admin", version="2.10", user_id="somebody") == 201
    assert await put(api, "k", token="member", version="2.10", user_id="somebody") == 403
    assert (await api("GET", "/os-keypairs/k?user_id=somebody", version="2.10")).status_code == 200
    assert (await api("GET", "/os-keypairs/k?user_id=somebody", version="2.9")).status_code == 404
    assert (await api("GET", "/os-keypairs?user_id=somebody", version="2.10", token="member")).status_code == 403
    assert (await api("DELETE", "/os-keypairs/k?user_id=somebody", version="2.10", token="member")).status_code == 403
    assert (await api("DELETE", "/os-keypairs/k?user_id=somebody", version="2.10")).status_code == 204


async def test_lists_are_paged_by_name_from_2_35(api: Client) -> None:
    for name in ("c", "a", "b"):
        await put(api, name)
    page = (await api("GET", "/os-keypairs?limit=2", token="member", version="2.35")).json()
    assert [item["keypair"]["name"] for item in page["keypairs"]] == ["a", "b"]
    assert page["keypairs_links"][0]["href"].endswith("/os-keypairs?limit=2&marker=b")
    rest = (await api("GET", "/os-keypairs?limit=2&marker=b", token="member", version="2.35")).json()
    assert [item["keypair"]["name"] for item in rest["keypairs"]] == ["c"]
    assert "keypairs_links" not in rest
    assert (await api("GET", "/os-keypairs?marker=nope", token="member", version="2.35")).status_code == 400
    everything = (await api("GET", "/os-keypairs?limit=1", token="member", version="2.34")).json()
    assert len(everything["keypairs"]) == 3


async def test_the_quota_of_key_pairs_is_kept(api: Client) -> None:
    limit = ComputeSettings().quota.key_pairs
    for number in range(limit):
        assert await put(api, f"k{number}") == 200
    assert await put(api, "more") == 403
    assert (await api("DELETE", "/os-keypairs/k0", token="member")).status_code == 202
    assert await put(api, "more") == 200
