"""Image (Glance): what an image is, and its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from kilonova import tracing
from kilonova.agent.driver import ImageSpec
from kilonova.clients.tls import trust
from kilonova.errors import Invalid, NotFound, Transient, Unavailable
from kilonova.runtime import Image
from kilonova.transactions import forbid_in_transaction

TokenSource = Callable[[], Awaitable[str | None]]

CHUNK = 1 << 20
FRESH = 1.0
"""Seconds for which an answer serves others too: a burst of boots asks about one image once."""

_CORE = {
    "id", "name", "status", "owner", "visibility", "size", "min_disk", "min_ram", "disk_format", "container_format",
    "checksum", "os_hash_algo", "os_hash_value", "os_hidden", "protected", "created_at", "updated_at", "tags",
    "virtual_size", "self", "file", "schema", "locations", "direct_url", "stores",
}  # fmt: skip


class ImageClient:
    """`endpoint` without a version, e.g. http://controller:9292; `token` gives the service user's."""

    def __init__(self, endpoint: str, token: TokenSource, *, timeout: float = 20.0, verify: bool | str = True) -> None:
        """`verify`: a file of authorities, or whether certificates count."""
        self.endpoint = endpoint.rstrip("/")
        self._token = token
        self._http = httpx.AsyncClient(timeout=timeout, verify=trust(verify), limits=httpx.Limits(max_connections=50))
        self._asked: dict[tuple[str, str], tuple[float, asyncio.Future[Image]]] = {}

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, image_id: str, *, project_id: str) -> Image:
        """As `project_id` sees it. Raises NotFound or Unavailable."""
        forbid_in_transaction("Image's API")
        loop = asyncio.get_running_loop()
        key = (image_id, project_id)
        known = self._asked.get(key)
        if known is None or loop.time() - known[0] > FRESH or (known[1].done() and known[1].exception()):
            if len(self._asked) > 1000:
                self._asked.clear()
            known = self._asked[key] = (loop.time(), asyncio.ensure_future(self._get(image_id, project_id)))
        return await asyncio.shield(known[1])

    async def _get(self, image_id: str, project_id: str) -> Image:
        document = await self._show(f"/v2/images/{image_id}", image_id)
        if not await self._visible(document, project_id):
            raise NotFound(f"Image {image_id} could not be found.")
        return image_from_document(document)

    async def _visible(self, document: dict[str, Any], project_id: str) -> bool:
        """The service user sees every image; who asks sees the public ones, their own, and those shared with them."""
        if document.get("owner") == project_id or document.get("visibility") in ("public", "community"):
            return True
        if document.get("visibility") != "shared":
            return False
        try:
            member = await self._show(f"/v2/images/{document['id']}/members/{project_id}", document["id"])
        except NotFound:
            return False
        return bool(member.get("member_id") == project_id)

    async def _show(self, path: str, image_id: str) -> dict[str, Any]:
        try:
            with tracing.span("image: GET", tracing.traceparent(), kind="client"):
                answer = await self._http.get(self.endpoint + path, headers=await self._headers())
        except httpx.HTTPError as error:
            raise Unavailable("The Image service does not answer.", details=repr(error)) from error
        if answer.status_code in (400, 403, 404):
            raise NotFound(f"Image {image_id} could not be found.")
        if answer.status_code != 200:
            raise Unavailable(f"The Image service answered {answer.status_code}.", details=answer.text[:500])
        found: dict[str, Any] = answer.json()
        return found

    async def _headers(self, token: str | None = None) -> dict[str, str]:
        token = token or await self._token()
        return {"X-Auth-Token": token} if token else {}

    async def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        """The image's bytes from `offset` on. Raises Transient, or Invalid when the image is gone."""
        headers = await self._headers(token)
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            async with self._http.stream(
                "GET", f"{self.endpoint}/v2/images/{image_id}/file", headers=headers
            ) as answer:
                if answer.status_code in (204, 404):
                    raise Invalid(f"Image {image_id} has no data or is gone.")
                if answer.status_code not in (200, 206):
                    raise Transient(f"The Image service answered {answer.status_code} to a download.")
                skip = offset if answer.status_code == 200 else 0
                async for chunk in answer.aiter_bytes(CHUNK):
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    yield chunk[skip:] if skip else chunk
                    skip = 0
        except httpx.HTTPError as error:
            raise Transient("The download of the image broke off.", details=repr(error)) from error


def image_from_document(document: dict[str, Any]) -> Image:
    """An image as Image's API v2 shows it."""
    properties = {k: v for k, v in document.items() if k not in _CORE and isinstance(v, str)}
    return Image(
        id=document["id"],
        name=document.get("name") or "",
        status=document["status"],
        owner=document.get("owner"),
        visibility=document.get("visibility", "private"),
        size=document.get("size"),
        min_disk=document.get("min_disk") or 0,
        min_ram=document.get("min_ram") or 0,
        properties=properties,
        spec=ImageSpec(
            id=document["id"],
            size=document.get("size") or 0,
            disk_format=document.get("disk_format") or "",
            container_format=document.get("container_format") or "bare",
            hash_algo=document.get("os_hash_algo") or ("md5" if document.get("checksum") else None),
            hash_value=document.get("os_hash_value") or document.get("checksum"),
            min_disk_gb=document.get("min_disk") or 0,
            properties=properties,
        ),
    )
