"""Signatures of images: what an image says of its own, and whether its bytes bear it out.

Field names, key types and hashes are those of Image's signing convention (`img_signature*` properties).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from kilonova.agent.driver import ImageSignature
from kilonova.errors import Invalid

HASHES: Mapping[str, type[hashes.HashAlgorithm]] = {
    "SHA-224": hashes.SHA224,
    "SHA-256": hashes.SHA256,
    "SHA-384": hashes.SHA384,
    "SHA-512": hashes.SHA512,
}
CURVES: Mapping[str, str] = {"ECC_SECP384R1": "secp384r1", "ECC_SECP521R1": "secp521r1"}
KEY_TYPES = ("RSA-PSS", "DSA", *CURVES)
VALUE = "img_signature"
HASH = "img_signature_hash_method"
KEY_TYPE = "img_signature_key_type"
CERTIFICATE = "img_signature_certificate_uuid"

_E = TypeVar("_E", bound=x509.ExtensionType)


def read(image_id: str, properties: Mapping[str, str]) -> tuple[str, ImageSignature]:
    """What an image says of its signature: the certificate's id, and the rest without the certificate.

    Raises Invalid for an image that is not signed, or not in a way that could be verified.
    """
    missing = [name for name in (VALUE, HASH, KEY_TYPE, CERTIFICATE) if not properties.get(name)]
    if missing:
        raise Invalid(f"Image {image_id} is not signed: it has no {', '.join(missing)}.")
    method, kind = properties[HASH], properties[KEY_TYPE]
    if method not in HASHES:
        raise Invalid(f"Image {image_id} is signed with {HASH} '{method}'; known are {', '.join(HASHES)}.")
    if kind not in KEY_TYPES:
        raise Invalid(f"Image {image_id} is signed with {KEY_TYPE} '{kind}'; known are {', '.join(KEY_TYPES)}.")
    try:
        base64.b64decode(properties[VALUE], validate=True)
    except binascii.Error:
        raise Invalid(f"Image {image_id}: its {VALUE} is not base64.") from None
    return properties[CERTIFICATE], ImageSignature(value=properties[VALUE], hash_method=method, key_type=kind)


def load(name: str, data: bytes) -> x509.Certificate:
    """A certificate, PEM or DER. `name` is for the message. Raises Invalid."""
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except ValueError as error:
        raise Invalid(f"{name} is not an X.509 certificate.") from error


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def check_key(image_id: str, certificate: x509.Certificate, key_type: str, now: dt.datetime) -> None:
    """Raises Invalid for a certificate that is not good now, not for signing, or whose key is of another type."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Invalid(
            f"Image {image_id}: the certificate of its signature is good from {certificate.not_valid_before_utc} "
            f"to {certificate.not_valid_after_utc} only."
        )
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise Invalid(f"Image {image_id}: the certificate of its signature is not for digital signatures.")
    if _type_of(certificate) != key_type:
        raise Invalid(f"Image {image_id}: the key of its certificate is not of the type {key_type}.")


def check_trust(
    image_id: str, certificate: x509.Certificate, trusted: Iterable[x509.Certificate], now: dt.datetime
) -> None:
    """Raises Invalid unless the certificate is one of those trusted, or one of them has issued it and may do so."""
    for issuer in trusted:
        if certificate == issuer or (_may_issue(issuer, now) and _issued(certificate, issuer)):
            return
    raise Invalid(
        f"Image {image_id}: the certificate of its signature was not issued by any of the trusted image certificates."
    )


def verify(image_id: str, signature: ImageSignature, path: Path) -> None:
    """Whether the file's bytes are those that were signed; takes as long as reading them. Raises Invalid."""
    chosen = HASHES[signature.hash_method]()
    key: Any = load(f"Image {image_id}: the certificate of its signature", signature.certificate.encode()).public_key()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, chosen.name).digest()
    value = base64.b64decode(signature.value)
    prehashed = Prehashed(chosen)
    try:
        if signature.key_type == "RSA-PSS":
            key.verify(value, digest, padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO), prehashed)
        elif signature.key_type == "DSA":
            key.verify(value, digest, prehashed)
        else:
            key.verify(value, digest, ec.ECDSA(prehashed))
    except InvalidSignature:
        raise Invalid(f"The signature of image {image_id} does not fit its bytes: it is not what was signed.") from None


def _type_of(certificate: x509.Certificate) -> str | None:
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA-PSS"
    if isinstance(key, dsa.DSAPublicKey):
        return "DSA"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return next((kind for kind, curve in CURVES.items() if curve == key.curve.name), None)
    return None


def _may_issue(issuer: x509.Certificate, now: dt.datetime) -> bool:
    constraints = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    return (
        issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc
        and constraints is not None
        and constraints.ca
        and (usage is None or usage.key_cert_sign)
    )


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
