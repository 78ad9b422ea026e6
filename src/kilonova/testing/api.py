"""The API's client of the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from kilonova.runtime import Runtime


@dataclass
class Client:
    """Sends requests as one of `testing.identity.CALLERS`."""

    http: httpx.AsyncClient
    rt: Runtime

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "admin",
        version: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        sent = dict(headers or {})
        if token:
            sent["X-Auth-Token"] = token
        if version:
            sent["OpenStack-API-Version"] = f"compute {version}"
        if body is not None:
            options["json"] = body
        url = path if path.startswith("/v2") or path in ("/", "/healthcheck") else f"/v2.1{path}"
        return await self.http.request(method, url, headers=sent, **options)
