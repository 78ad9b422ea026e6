"""Certificates of users: the key is made here and kept nowhere, the role cert signs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kilonova.bus.messages import AuthorityQuestion, SignCertificate
from kilonova.cert.authority import KEY_BITS
from kilonova.cert.role import ADDRESS
from kilonova.context import RequestContext
from kilonova.errors import Unavailable
from kilonova.runtime import Runtime

_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Made:
    """Both PEM."""

    private_key: str
    certificate: str


async def create(rt: Runtime, ctx: RequestContext) -> Made:
    """A new key of the caller's, and its certificate. Raises Unavailable when no role cert answers."""
    private_key, request = await asyncio.to_thread(_key_and_request)
    asked = SignCertificate(request=request, user_id=ctx.user_id, project_id=ctx.project_id)
    answer = await rt.bus.ask(ADDRESS, asked, _TIMEOUT)
    if answer.error is not None:
        raise Unavailable(answer.error)
    return Made(private_key, str(answer.data["certificate"]))


async def root(rt: Runtime) -> str:
    """The authority's certificate, PEM. Raises Unavailable when no role cert answers."""
    answer = await rt.bus.ask(ADDRESS, AuthorityQuestion(), _TIMEOUT)
    return str(answer.data["certificate"])


def _key_and_request() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return private.decode(), request.public_bytes(serialization.Encoding.PEM).decode()
