"""Certificates and signed images, as a tenant would make them."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.x509.oid import NameOID

from kilonova import signatures

KEYS: dict[str, Any] = {
    "RSA-PSS": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "DSA": lambda: dsa.generate_private_key(key_size=2048),
    "ECC_SECP384R1": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ECC_SECP521R1": lambda: ec.generate_private_key(ec.SECP521R1()),
}


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A certificate with its key."""

    key_type: str
    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, data: bytes, hash_method: str = "SHA-256") -> str:
        """Base64, as `img_signature` has it."""
        chosen = signatures.HASHES[hash_method]()
        if self.key_type == "RSA-PSS":
            value = self.key.sign(data, padding.PSS(padding.MGF1(chosen), padding.PSS.MAX_LENGTH), chosen)
        elif self.key_type == "DSA":
            value = self.key.sign(data, chosen)
        else:
            value = self.key.sign(data, ec.ECDSA(chosen))
        return base64.b64encode(value).decode()

    def properties(self, data: bytes, certificate_id: str, hash_method: str = "SHA-256") -> dict[str, str]:
        """What a signed image says."""
        return {
            signatures.VALUE: self.sign(data, hash_method),
            signatures.HASH: hash_method,
            signatures.KEY_TYPE: self.key_type,
            signatures.CERTIFICATE: certificate_id,
        }


def signer(
    key_type: str = "RSA-PSS",
    *,
    name: str = "signer",
    issuer: Signer | None = None,
    authority: bool = False,
    days: tuple[int, int] = (-1, 1),
    for_signatures: bool = True,
) -> Signer:
    """`issuer` None: signed by itself. `days` from now, first and last."""
    key = KEYS[key_type]()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=for_signatures, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    return Signer(key_type=key_type, key=key, certificate=certificate)
