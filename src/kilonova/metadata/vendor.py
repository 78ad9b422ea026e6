"""Vendor data: an operator's own document, and what the operator's services say of a server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import structlog

from kilonova.errors import Invalid, Unavailable
from kilonova.metadata.content import ServerFacts
from kilonova.metadata.settings import DYNAMIC, STATIC, MetadataSettings
from kilonova.metadata.tree import Vendor

log = structlog.get_logger(__name__)

AGENT = "openstack-nova-vendordata"
MOST = 1 << 20
"""Bytes of an answer."""


class VendorData:
    """Reads the static document once. Raises Invalid for one that is no JSON object, and for unknown providers."""

    def __init__(self, settings: MetadataSettings) -> None:
        unknown = set(settings.vendordata_providers) - {STATIC, DYNAMIC}
        if unknown:
            raise Invalid(f"[api] vendordata_providers: {', '.join(sorted(unknown))} is none of {STATIC}, {DYNAMIC}")
        self._settings = settings
        self._static = _read(settings) if STATIC in settings.vendordata_providers else None
        self._targets: dict[str, str] = {}
        if DYNAMIC in settings.vendordata_providers:
            for name, url in settings.vendordata_targets:
                if name in self._targets or (name == "static" and self._static is not None):
                    log.warning("metadata.vendordata_name_taken", name=name, url=url)
                    continue
                self._targets[name] = url
        limits = httpx.Timeout(settings.vendordata_read_timeout, connect=settings.vendordata_connect_timeout)
        # A service that sends a byte now and then is never silent for long.
        self._deadline = settings.vendordata_connect_timeout + settings.vendordata_read_timeout
        self._http = httpx.AsyncClient(timeout=limits, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    @property
    def static(self) -> Vendor:
        return Vendor(self._static)

    async def of(self, facts: ServerFacts, image_ref: str) -> Vendor:
        """Asks the targets, side by side. Raises Unavailable when one fails and that is fatal.

        They are sent no token: `[vendordata_dynamic_auth]` is none of our options.
        """
        if not self._targets:
            return self.static
        question = {
            "project-id": facts.project_id,
            "instance-id": facts.uuid,
            "image-id": image_ref,
            "user-data": None if facts.user_data is None else base64.b64encode(facts.user_data).decode(),
            "hostname": facts.hostname,
            "metadata": dict(facts.metadata),
            "boot-roles": "",
        }
        content = msgspec.json.encode(question)
        answers = await asyncio.gather(*(self._ask(name, url, content) for name, url in self._targets.items()))
        return Vendor(self._static, dict(zip(self._targets, answers, strict=True)))

    async def _ask(self, name: str, url: str, question: bytes) -> Any:
        headers = {"User-Agent": AGENT, "Content-Type": "application/json", "Accept": "application/json"}
        try:
            async with (
                asyncio.timeout(self._deadline),
                self._http.stream("POST", url, content=question, headers=headers) as answer,
            ):
                answer.raise_for_status()
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > MOST:
                        raise ValueError(f"more than {MOST} bytes")
            return msgspec.json.decode(body) if body else {}
        except (httpx.HTTPError, msgspec.DecodeError, ValueError, TimeoutError) as error:
            log.warning("metadata.vendordata_failed", target=name, url=url, error=repr(error))
            if self._settings.vendordata_failure_fatal:
                raise Unavailable(f"Vendor data '{name}' is not to be had.", details=repr(error)) from error
            return {}


def _read(settings: MetadataSettings) -> Mapping[str, Any]:
    path = settings.vendordata_file
    if path is None:
        return {}
    try:
        found = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        log.warning("metadata.vendordata_file_absent", path=str(path))
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise Invalid(f"[api] vendordata_jsonfile_path: {path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise Invalid(f"[api] vendordata_jsonfile_path: {path} holds no JSON object")
    return found
