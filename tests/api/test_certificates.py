"""Certificates of users, which only the old path has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from kilonova.bus.messages import SignCertificate
from kilonova.cert.authority import Authority
from kilonova.cert.role import ADDRESS, Cert
from kilonova.compute import certificates
from kilonova.errors import Conflict
from kilonova.testing.api import Client
from kilonova.world import World


@pytest.fixture
async def folder(api: Client, tmp_path: Path) -> AsyncIterator[Path]:
    role = Cert(api.rt.bus, api.rt.world, Authority(tmp_path / "CA"), host="controller01", report_interval=10)
    await role.start()
    yield tmp_path / "CA"
    await role.stop()


async def test_a_made_certificate_is_the_callers_and_signed_by_the_root(api: Client, folder: Path) -> None:
    answer = await api("POST", "/v2/os-certificates", token="member")
    assert answer.status_code == 200, answer.text
    made = answer.json()["certificate"]
    certificate = x509.load_pem_x509_certificate(made["data"].encode())
    key = serialization.load_pem_private_key(made["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert certificate.public_key() == key.public_key()
    (user,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert user.value == "member"
    shown = (await api("GET", "/v2/os-certificates/root", token="member")).json()["certificate"]
    assert shown["private_key"] is None
    root = x509.load_pem_x509_certificate(shown["data"].encode())
    certificate.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    (line,) = (folder / "issued.jsonl").read_text().splitlines()
    assert json.loads(line)["serial"] == f"{certificate.serial_number:x}"
    assert made["private_key"] not in "".join(each.read_text() for each in folder.rglob("*") if each.is_file())


async def test_versions_after_the_old_api_have_no_certificates(api: Client, folder: Path) -> None:
    for method, path, body in (("POST", "/os-certificates", {}), ("GET", "/os-certificates/root", None)):
        for version in ("2.1", "2.104"):
            assert (await api(method, path, body, version=version)).status_code == 410
    assert not (folder / "issued.jsonl").exists()


async def test_only_the_root_is_shown_and_readers_make_none(api: Client, folder: Path) -> None:
    assert (await api("GET", "/v2/os-certificates/1", token="member")).status_code == 501
    assert (await api("POST", "/v2/os-certificates", {}, token="reader")).status_code == 403
    assert (await api("GET", "/v2/os-certificates/root", token="reader")).status_code == 200
    assert (await api("POST", "/v2/os-certificates", {}, token=None)).status_code == 401


async def test_the_key_is_for_its_owner_alone_and_stays_the_same(api: Client, folder: Path) -> None:
    key = folder / "private/cakey.pem"
    assert key.stat().st_mode & 0o077 == 0
    assert key.parent.stat().st_mode & 0o077 == 0
    before = key.read_bytes()
    Authority(folder).ensure(World().now())
    assert key.read_bytes() == before


async def test_a_half_authority_is_not_made_anew(api: Client, folder: Path) -> None:
    (folder / "private/cakey.pem").unlink()
    with pytest.raises(Conflict, match=r"lacks cakey\.pem"):
        Authority(folder).ensure(World().now())
    assert (folder / "cacert.pem").exists()


async def test_requests_of_somebody_elses_key_are_refused(api: Client, folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    good = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    broken = good[:-1] + bytes([good[-1] ^ 1])
    pem = x509.load_der_x509_csr(broken).public_bytes(serialization.Encoding.PEM).decode()
    for request, says in ((pem, "not signed by its own key"), ("nonsense", "cannot be read")):
        answer = await api.rt.bus.ask(ADDRESS, SignCertificate(request=request, user_id="u", project_id="p"), 10)
        assert answer.error is not None
        assert says in answer.error
    assert not (folder / "issued.jsonl").exists()


async def test_without_the_role_the_answer_is_503(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_TIMEOUT", 0.2)
    assert (await api("GET", "/v2/os-certificates/root", token="member")).status_code == 503
