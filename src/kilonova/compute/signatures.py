"""Whether an image's signature has to be verified, and by which certificate.

Certificates are asked for with the caller's own token while the request is there: the key manager decides what a
tenant may see, and no token has to outlive the request. Hosts verify the bytes; they get the certificate itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt

import msgspec

from kilonova.errors import Invalid, NotFound
from kilonova.runtime import Image, Runtime
from kilonova.settings import ComputeSettings


def trusted_by_default(settings: ComputeSettings) -> list[str] | None:
    """Ids of the certificates that count for a server whose owner names none."""
    rules = settings.signatures
    return list(rules.trusted) or None if rules.verify and rules.check_certificates else None


async def demand(rt: Runtime, image: Image, token: str, trusted: list[str] | None) -> Image:
    """The image with what hosts verify it by, where the cloud or the caller (by `trusted`) asks for that.

    Raises Invalid for an image that is not signed as asked, Unavailable when the key manager does not answer.
    """
    rules = rt.settings.signatures
    if not rules.verify and not trusted:
        return image
    if rules.check_certificates and not trusted:
        raise Invalid(
            f"Image {image.id} cannot be trusted: say trusted_image_certificates, since this cloud names none itself."
        )
    # What most servers never need takes its time to be loaded.
    from kilonova import signatures

    secret_id, signature = signatures.read(image.id, image.properties)
    ids = list(dict.fromkeys([secret_id, *(trusted or ())]))
    found = await asyncio.gather(*(_certificate(rt, one, token) for one in ids))
    certificates = {one: signatures.load(f"Certificate {one}", data) for one, data in zip(ids, found, strict=True)}
    signing, now = certificates[secret_id], rt.world.now().replace(tzinfo=dt.UTC)
    signatures.check_key(image.id, signing, signature.key_type, now)
    if trusted:
        signatures.check_trust(image.id, signing, [certificates[one] for one in trusted], now)
    signature = msgspec.structs.replace(signature, certificate=signatures.pem(signing))
    return dataclasses.replace(image, spec=msgspec.structs.replace(image.spec, signature=signature))


async def _certificate(rt: Runtime, secret_id: str, token: str) -> bytes:
    if rt.certificates is None:
        raise Invalid("Signatures of images cannot be verified: this cloud has no key manager.")
    try:
        return await rt.certificates.certificate(secret_id, token)
    except NotFound as error:
        raise Invalid(f"Certificate {secret_id} could not be found with your token in the key manager.") from error
