"""The certificate authority: a key and a certificate of its own in one folder, and a line for each that it signed.

    cacert.pem          the authority's certificate, for everybody
    private/cakey.pem   its key, for the role's user alone
    issued.jsonl        serial number, user, project and end of each certificate

Slow: call in a thread.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from kilonova.allinone.files import write_private
from kilonova.errors import Conflict, Invalid

KEY_BITS = 2048
AUTHORITY_DAYS = 3650
DAYS = 365
"""For which a user's certificate is good."""
_CLOCKS = dt.timedelta(minutes=5)
"""How far a user's clock may be behind ours."""


class Authority:
    """Several processes may share the folder: who comes first makes the key, the others find it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._certificate = directory / "cacert.pem"
        self._key = directory / "private/cakey.pem"

    def ensure(self, now: dt.datetime) -> None:
        """Make key and certificate where there are none. Raises Conflict when one is there without the other."""
        with self._locked():
            if self._certificate.exists() != self._key.exists():
                missing = self._key if self._certificate.exists() else self._certificate
                raise Conflict(
                    f"The certificate authority in {self._directory} lacks {missing.name}: restore it from a backup, "
                    "or move the folder away to begin with a new authority."
                )
            if self._key.exists():
                return
            self._key.parent.mkdir(mode=0o700, exist_ok=True)
            key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            made = _authority_certificate(key, now)
            write_private(self._key, _pem_of_key(key))
            write_private(self._certificate, made.public_bytes(serialization.Encoding.PEM))
            self._certificate.chmod(0o644)

    def certificate(self) -> str:
        """The authority's own certificate, PEM."""
        return self._certificate.read_text()

    def sign(self, request: str, *, user_id: str, project_id: str, now: dt.datetime) -> str:
        """A certificate (PEM) of the signing request's key for a user of a project. `now` is UTC, naive.

        What the request says of its subject does not count. Raises Invalid for what is no request of its own key.
        """
        try:
            asked = x509.load_pem_x509_csr(request.encode())
        except ValueError:
            raise Invalid("The signing request cannot be read.") from None
        if not asked.is_signature_valid:
            raise Invalid("The signing request is not signed by its own key.")
        key = serialization.load_pem_private_key(self._key.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        issuer = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        end = now + dt.timedelta(days=DAYS)
        made = (
            _builder(_subject(user_id, project_id), issuer.subject, now, end)
            .public_key(asked.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        self._note(made, user_id=user_id, project_id=project_id, end=end)
        return made.public_bytes(serialization.Encoding.PEM).decode()

    def _note(self, made: x509.Certificate, *, user_id: str, project_id: str, end: dt.datetime) -> None:
        line = {
            "serial": f"{made.serial_number:x}",
            "user_id": user_id,
            "project_id": project_id,
            "not_after": end.isoformat(timespec="seconds"),
        }
        with self._locked(), open(self._directory / "issued.jsonl", "ab", opener=_private) as stream:
            stream.write(msgspec.json.encode(line) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        with open(self._directory / ".lock", "ab", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _pem_of_key(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(user_id: str, project_id: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "OpenStack"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, project_id[:64] or "-"),
            x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64] or "-"),
        ]
    )


def _authority_certificate(key: rsa.RSAPrivateKey, now: dt.datetime) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "OpenStack"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Compute certificate authority"),
        ]
    )
    return (
        _builder(name, name, now, now + dt.timedelta(days=AUTHORITY_DAYS))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, now: dt.datetime, end: dt.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
