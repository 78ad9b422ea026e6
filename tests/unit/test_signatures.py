"""Signatures of images: what is read of them, whose certificates count, and whether the bytes are those signed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from kilonova import signatures
from kilonova.errors import Invalid
from tests.support.signing import KEYS, Signer, signer

DATA = b"an image" * 1000
NOW = dt.datetime.now(dt.UTC)


def verify(signer: Signer, path: Path, data: bytes, hash_method: str = "SHA-256") -> None:
    path.write_bytes(data)
    _, signature = signatures.read("img", signer.properties(DATA, "cert", hash_method))
    signatures.verify("img", msgspec.structs.replace(signature, certificate=signer.pem.decode()), path)


@pytest.mark.parametrize("key_type", KEYS)
def test_every_type_of_key_tells_the_signed_bytes_from_others(key_type: str, tmp_path: Path) -> None:
    mine = signer(key_type)
    for hash_method in signatures.HASHES:
        verify(mine, tmp_path / "image", DATA, hash_method)
        with pytest.raises(Invalid, match="does not fit its bytes"):
            verify(mine, tmp_path / "image", DATA[:-1] + b"x", hash_method)


def test_another_key_of_the_same_type_is_not_the_signers(tmp_path: Path) -> None:
    mine, other = signer(), signer()
    path = tmp_path / "image"
    path.write_bytes(DATA)
    _, signature = signatures.read("img", mine.properties(DATA, "cert"))
    with pytest.raises(Invalid, match="does not fit"):
        signatures.verify("img", msgspec.structs.replace(signature, certificate=other.pem.decode()), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({signatures.VALUE: ""}, "is not signed: it has no img_signature."),
        ({signatures.CERTIFICATE: ""}, "no img_signature_certificate_uuid"),
        ({signatures.HASH: "MD5"}, "'MD5'; known are SHA-224"),
        ({signatures.KEY_TYPE: "ECC_SECT571K1"}, "'ECC_SECT571K1'; known are RSA-PSS"),
        ({signatures.VALUE: "no base64!"}, "is not base64"),
    ],
)
def test_a_signature_that_could_not_be_verified_says_what_is_wrong(changes: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        signatures.read("img", signer().properties(DATA, "cert") | changes)


@pytest.mark.parametrize(
    ("made", "key_type", "message"),
    [
        (signer(days=(-2, -1)), "RSA-PSS", "is good from"),
        (signer(days=(1, 2)), "RSA-PSS", "is good from"),
        (signer(for_signatures=False), "RSA-PSS", "not for digital signatures"),
        (signer("ECC_SECP384R1"), "RSA-PSS", "not of the type RSA-PSS"),
        (signer("ECC_SECP384R1"), "ECC_SECP521R1", "not of the type"),
    ],
)
def test_a_certificate_has_to_be_good_now_for_this(made: Signer, key_type: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        signatures.check_key("img", made.certificate, key_type, NOW)


def test_trust_is_in_the_certificate_itself_or_in_the_authority_that_issued_it() -> None:
    authority = signer(name="authority", authority=True)
    issued = signer(issuer=authority)

    assert _trusts(issued, issued)
    assert _trusts(issued, signer(name="another", authority=True), authority)
    assert not _trusts(issued)
    assert not _trusts(issued, signer(name="authority", authority=True))  # of the same name, with another key
    assert not _trusts(issued, signer(name="authority"))
    # One that may not issue, and one whose time is over, have issued nothing.
    plain = signer(name="plain")
    assert not _trusts(signer(issuer=plain), plain)
    old = signer(name="old", authority=True, days=(-3, -1))
    assert not _trusts(signer(issuer=old), old)


def _trusts(issued: Signer, *by: Signer) -> bool:
    try:
        signatures.check_trust("img", issued.certificate, [one.certificate for one in by], NOW)
    except Invalid:
        return False
    return True


def test_certificates_are_read_in_both_forms() -> None:
    made = signer()
    der = made.certificate.public_bytes(serialization.Encoding.DER)
    assert signatures.load("c", der) == signatures.load("c", made.pem) == made.certificate
    with pytest.raises(Invalid, match="Certificate c is not an X"):
        signatures.load("Certificate c", b"rubbish")
