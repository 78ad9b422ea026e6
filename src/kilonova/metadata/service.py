"""The metadata service: what a guest asks at 169.254.169.254. Plain ASGI; writes nothing but the posted password."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from kilonova.compute import guest_password
from kilonova.db import servers
from kilonova.errors import Conflict, Forbidden, Invalid, KilonovaError, NotFound, TooLarge, Unavailable
from kilonova.metadata import facts, tree, who
from kilonova.metadata.content import GRIZZLY, LATEST, OPENSTACK_VERSIONS, ServerFacts
from kilonova.metadata.settings import MetadataSettings
from kilonova.metadata.vendor import VendorData
from kilonova.runtime import Runtime

log = structlog.get_logger(__name__)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Key = tuple[str, ...]

SEED = 512
"""Bytes of randomness for each answer."""

_PLACE = os.urandom(33)
"""Stands in kept documents where each answer has a seed of its own."""
_ENCODED_PLACE = base64.b64encode(_PLACE)

MOST_DOCUMENTS = 100
"""Kept for one asker."""

MOST_KEPT = 10_000
"""Askers in the cache."""

STATUSES: tuple[tuple[type[KilonovaError], int], ...] = (
    (NotFound, 404),
    (Forbidden, 403),
    (Conflict, 409),
    (TooLarge, 400),
    (Invalid, 400),
    (Unavailable, 503),
)


@dataclass(slots=True)
class _Known:
    """An asker's server, until `until` (of the monotonic clock)."""

    facts: ServerFacts
    vendor: tree.Vendor | None
    image_ref: str
    until: float
    documents: dict[str, tree.Document] = field(default_factory=dict)


class MetadataService:
    """Raises Invalid for vendor data that cannot be read."""

    def __init__(self, rt: Runtime, settings: MetadataSettings) -> None:
        self._rt = rt
        self._settings = settings
        self._vendor = VendorData(settings, rt.image_token)
        self._known: dict[Key, _Known] = {}

    async def close(self) -> None:
        await self._vendor.close()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            status, found = await self._answer(scope, receive)
        except KilonovaError as error:
            status = next((code for kind, code in STATUSES if isinstance(error, kind)), 500)
            found = tree.Document(error.message.encode())
        except Exception:
            log.exception("metadata.failed", path=scope["path"])
            status, found = 500, tree.Document(b"An unknown error has occurred. Please try your request again.")
        headers = [(b"content-type", found.kind.encode()), (b"content-length", str(len(found.body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else found.body})

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> tuple[int, tree.Document]:
        path = scope["path"]
        found = tree.parts(path)
        if not found:
            # Before anybody is looked up.
            return 200, _some(tree.listing(found))
        key = who.key_of(who.headers_of(scope["headers"]), scope["client"][0], self._settings)
        known = await self._server(key)
        kept = known.documents.get(path)
        if kept is not None:
            return 200, _seeded(kept)
        if len(found) == 3 and found[0] == "openstack" and found[2] == "password":
            return await self._password(known, found[1], scope["method"], receive)
        document = tree.listing(found) or await self._document(known, found)
        if len(known.documents) < MOST_DOCUMENTS:
            known.documents[path] = document
        return 200, _seeded(document)

    async def _document(self, known: _Known, found: list[str]) -> tree.Document:
        if found[-1] == "vendor_data2.json" and known.vendor is None:
            known.vendor = await self._vendor.of(known.facts, known.image_ref)
        return _some(tree.document(known.facts, found, known.vendor or self._vendor.static))

    async def _server(self, key: Key) -> _Known:
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and known.until > now:
            return known
        asker = await who.find(key, self._rt.network)
        server = await self._rt.db.read(lambda tx: servers.get(tx, asker.server_uuid))
        if server is None or (asker.project_id is not None and server.project_id != asker.project_id):
            self._known.pop(key, None)
            raise NotFound("There is no such instance.")
        known = _Known(
            facts=replace(
                facts.of_server(server, dhcp_domain=self._settings.dhcp_domain, address=asker.address),
                random_seed=_PLACE,
            ),
            vendor=None,
            image_ref=server.image_ref,
            until=now + self._settings.cache_expiration,
        )
        self._keep(key, known, now)
        return known

    def _keep(self, key: Key, known: _Known, now: float) -> None:
        if len(self._known) >= MOST_KEPT:
            self._known = {each: other for each, other in self._known.items() if other.until > now}
            while len(self._known) >= MOST_KEPT:
                del self._known[next(iter(self._known))]
        self._known[key] = known

    async def _password(self, known: _Known, version: str, method: str, receive: Receive) -> tuple[int, tree.Document]:
        if version not in (*OPENSTACK_VERSIONS, LATEST) or (version != LATEST and version < GRIZZLY):
            raise NotFound("There is nothing at this path.")
        if method in ("GET", "HEAD"):
            stored = await guest_password.get(self._rt, known.facts.uuid)
            return 200, tree.Document(stored.encode())
        if method != "POST":
            raise Invalid("A password can be read (GET) and stored (POST).")
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > guest_password.MOST:
                raise TooLarge(f"A password may have {guest_password.MOST} bytes at most.")
            if not message.get("more_body", False):
                break
        await guest_password.store_once(self._rt, known.facts.uuid, body)
        return 200, tree.Document(b"")


def _seeded(document: tree.Document) -> tree.Document:
    if not document.fresh:
        return document
    return replace(document, body=document.body.replace(_ENCODED_PLACE, base64.b64encode(os.urandom(SEED))))


def _some(document: tree.Document | None) -> tree.Document:
    if document is None:
        raise NotFound("There is nothing at this path.")
    return document
