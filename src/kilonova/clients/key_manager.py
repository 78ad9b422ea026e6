"""The key manager (Barbican): certificates, as far as it shows them to whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import httpx

from kilonova import tracing
from kilonova.clients.tls import trust
from kilonova.errors import Invalid, NotFound, Unavailable
from kilonova.transactions import forbid_in_transaction

LARGEST = 1 << 16
"""Bytes: no certificate is larger."""


class KeyManagerClient:
    """`endpoint` finds the address when it is first needed: most clouds have no key manager."""

    def __init__(
        self, endpoint: Callable[[], Awaitable[str | None]], *, timeout: float = 20.0, verify: bool | str = True
    ) -> None:
        self._endpoint = endpoint
        self._http = httpx.AsyncClient(timeout=timeout, verify=trust(verify))

    async def close(self) -> None:
        await self._http.aclose()

    async def certificate(self, secret_id: str, token: str) -> bytes:
        """A certificate as it was stored, PEM or DER. Raises NotFound, Unavailable, Invalid without a key manager."""
        forbid_in_transaction("the key manager's API")
        endpoint = await self._endpoint()
        if endpoint is None:
            raise Invalid("Signatures of images cannot be verified: this cloud has no key manager.")
        url = f"{endpoint.rstrip('/').removesuffix('/v1')}/v1/secrets/{quote(secret_id, safe='')}"
        shown = await self._get(url, secret_id, token, "application/json")
        kind = (shown.json().get("content_types") or {}).get("default")
        if kind is None:
            raise NotFound(f"Secret {secret_id} has no content.")
        return (await self._get(f"{url}/payload", secret_id, token, kind)).content[:LARGEST]

    async def _get(self, url: str, secret_id: str, token: str, kind: str) -> httpx.Response:
        try:
            with tracing.span("key manager: GET", tracing.traceparent(), kind="client"):
                answer = await self._http.get(url, headers={"X-Auth-Token": token, "Accept": kind})
        except httpx.HTTPError as error:
            raise Unavailable("The key manager does not answer.", details=repr(error)) from error
        if answer.status_code in (400, 403, 404):
            raise NotFound(f"Secret {secret_id} could not be found.")
        if answer.status_code != 200:
            raise Unavailable(f"The key manager answered {answer.status_code}.", details=answer.text[:500])
        return answer
