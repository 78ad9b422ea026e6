"""What a database's URL says of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import sqlalchemy as sa

from kilonova.allinone.up import UpOptions, _check_files
from kilonova.db import tls
from kilonova.errors import Invalid
from tests.support.certificates import write_certificates


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    write_certificates(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "query", "verified", "exact"),
    [
        ("mysql", "ssl_ca={pki}/ca.pem", True, True),
        ("mysql", "ssl_ca={pki}/ca.pem&ssl_cert={pki}/server.pem&ssl_key={pki}/server.key", True, True),
        ("mysql", "ssl=true", True, True),
        ("mysql", "ssl_ca={pki}/ca.pem&ssl_verify_identity=false", True, False),
        ("mysql", "ssl_ca={pki}/ca.pem&ssl_check_hostname=false", True, False),
        ("mysql", "ssl_verify_cert=false&ssl=1", False, False),
        ("postgresql", "sslmode=verify-full&sslrootcert={pki}/ca.pem", True, True),
        ("postgresql", "sslmode=verify-ca&sslrootcert={pki}/ca.pem", True, False),
        ("postgresql", "sslmode=require", False, False),
        ("postgresql", "sslrootcert={pki}/ca.pem", True, True),
    ],
)
def test_how_strictly_a_certificate_is_looked_at(pki: Path, kind: str, query: str, verified: bool, exact: bool) -> None:
    url = sa.make_url(f"{kind}://u:p@h/n?charset=utf8&{query.format(pki=pki)}")
    rest, context = tls.split(url)
    assert context is not None
    assert (context.verify_mode == ssl.CERT_REQUIRED, context.check_hostname) == (verified, exact)
    assert dict(rest.query) == {"charset": "utf8"}


@pytest.mark.parametrize(
    "text",
    ["mysql://u:p@h/n", "mysql://u:p@h/n?ssl=false", "mysql://u:p@h/n?ssl_ca=/x&ssl_disabled=true",
     "postgresql://u:p@h/n", "postgresql://u:p@h/n?sslmode=prefer"],
)  # fmt: skip
def test_without_tls(text: str) -> None:
    rest, context = tls.split(sa.make_url(text))
    assert context is None
    assert not rest.query


def test_postgresql_s_driver_is_told_of_a_refusal_since_it_tries_tls_by_itself() -> None:
    assert tls.split(sa.make_url("postgresql://u:p@h/n?sslmode=disable"))[1] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mysql://u:secret@h/n?ssl_ca=/nowhere/ca.pem", "files for TLS .* cannot be used"),
        ("postgresql://u:secret@h/n?sslmode=strict", "sslmode=strict: known are"),
    ],
)
def test_what_cannot_be_used_is_said_without_the_password(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        tls.split(sa.make_url(text))
    assert "secret" not in caught.value.message


def test_the_cloud_of_one_machine_does_not_leave_tls_out_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "nova.conf"
    file.write_text("[DEFAULT]\nenabled_ssl_apis = osapi_compute\n")
    with pytest.raises(Invalid, match="speaks plain HTTP"):
        _check_files(UpOptions(state_dir=tmp_path, config_files=(file,)))
