"""Keys and certificates themselves: made, and known by their fingerprints. Slow: call in a thread."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kilonova.errors import Invalid

KEY_BITS = 2048
CERTIFICATE_DAYS = 3650

_USER_PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")


@dataclass(frozen=True, slots=True)
class Generated:
    """`private_key`: PEM for ssh; for x509 a PKCS 12 bundle without a password, in base64."""

    public_key: str
    private_key: str
    fingerprint: str


def fingerprint(key_type: str, public_key: str) -> str:
    """MD5 of an ssh key or SHA-1 of a certificate, in pairs of digits. Raises Invalid."""
    return _certificate_fingerprint(public_key) if key_type == "x509" else _ssh_fingerprint(public_key)


def _pairs(digest: str) -> str:
    return ":".join(digest[index : index + 2] for index in range(0, len(digest), 2))


def _ssh_fingerprint(public_key: str) -> str:
    try:
        serialization.load_ssh_public_key(public_key.encode())
        data = base64.b64decode(public_key.split(" ")[1])
    except (ValueError, UnsupportedAlgorithm, IndexError, binascii.Error):
        raise Invalid("Keypair data is invalid: failed to generate fingerprint") from None
    return _pairs(hashlib.md5(data, usedforsecurity=False).hexdigest())


def _certificate_fingerprint(certificate: str) -> str:
    try:
        loaded = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError as error:
        raise Invalid(f"Keypair data is invalid: failed to generate X509 fingerprint. Error message: {error}") from None
    return _pairs(loaded.fingerprint(hashes.SHA1()).hex())


def generate(key_type: str, user_id: str, now: dt.datetime) -> Generated:
    """A new key pair. `now` is UTC, naive."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return _certificate(key, user_id, now) if key_type == "x509" else _ssh(key)


def _ssh(key: rsa.RSAPrivateKey) -> Generated:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    text = f"{public.decode()} Generated-by-Nova"
    return Generated(public_key=text, private_key=private, fingerprint=_ssh_fingerprint(text))


def _certificate(key: rsa.RSAPrivateKey, user_id: str, now: dt.datetime) -> Generated:
    # For passwordless log-in to Windows: the user stands in the certificate as a principal name.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64] or "user")])
    principal = f"{user_id}@localhost".encode()
    if len(principal) > 120:
        principal = principal[:120]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.OtherName(_USER_PRINCIPAL_NAME, bytes([0x0C, len(principal)]) + principal)]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    bundle = pkcs12.serialize_key_and_certificates(None, key, certificate, None, serialization.NoEncryption())
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Generated(
        public_key=public,
        private_key=base64.b64encode(bundle).decode(),
        fingerprint=_certificate_fingerprint(public),
    )
