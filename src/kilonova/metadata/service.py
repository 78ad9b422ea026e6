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
from kilonova.errors import Conflict, Forbidden, Invalid, KilonovaError, NotFound, TooLarge
from kilonova.metadata import facts, tree, who
from kilonova.metadata.content import GRIZZLY, LATEST, OPENSTACK_VERSIONS, ServerFacts
from kilonova.metadata.settings import MetadataSettings
from kilonova.metadata.vendor import VendorData
from kilonova.metrics.families import request as count_request
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

MOST_KEPT = 10_000
"""Askers in the cache."""

MOST_BYTES = 64 << 20
"""Of documents in the cache."""

FAILED = tree.Document(b"An unknown error has occurred. Please try your request again.")
"""Why stands in the log: who asks might be anybody."""

STATUSES: tuple[tuple[type[KilonovaError], int], ...] = (
    (NotFound, 404),
    (Forbidden, 403),
    (Conflict, 409),
    (TooLarge, 400),
    (Invalid, 400),
)


@dataclass(slots=True)
class _Known:
    """An asker's server, until `until` (of the monotonic clock)."""

    key: Key
    facts: ServerFacts
    vendor: tree.Vendor | None
    image_ref: str
    until: float
    documents: dict[str, tree.Document] = field(default_factory=dict)
    """By path, normalised."""
    size: int = 0
    """Bytes of them."""


class MetadataService:
    """Raises Invalid for vendor data that cannot be read."""

    def __init__(self, rt: Runtime, settings: MetadataSettings) -> None:
        self._rt = rt
        self._settings = settings
        self._vendor = VendorData(settings)
        self.kept: dict[Key, _Known] = {}
        self.kept_bytes = 0

    async def close(self) -> None:
        await self._vendor.close()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            status, found = await self._answer(scope, receive)
        except KilonovaError as error:
            status = next((code for kind, code in STATUSES if isinstance(error, kind)), 500)
            found = tree.Document(error.message.encode())
            if status == 500:
                log.error("metadata.failed", path=scope["path"], reason=error.message, details=error.details)
                found = FAILED
        except Exception:
            log.exception("metadata.failed", path=scope["path"])
            status, found = 500, FAILED
        headers = [(b"content-type", found.kind.encode()), (b"content-length", str(len(found.body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else found.body})
        count_request("metadata", scope["method"], "metadata", status, time.perf_counter() - started)

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> tuple[int, tree.Document]:
        found = tree.parts(scope["path"])
        if not found:
            # Before anybody is looked up.
            return 200, _some(tree.listing(found))
        known = await self._server(who.key_of(scope["headers"], scope["client"][0], self._settings))
        path = "/".join(found)
        kept = known.documents.get(path)
        if kept is not None:
            return 200, _seeded(kept)
        if len(found) == 3 and found[0] == "openstack" and found[2] == "password":
            return await self._password(known, found[1], scope["method"], receive)
        listing = tree.listing(found, today=self._rt.world.now().date())
        if listing is not None:
            return 200, listing
        document = await self._document(known, found)
        self._keep(known, path, document)
        return 200, _seeded(document)

    async def _document(self, known: _Known, found: list[str]) -> tree.Document:
        if found[-1] == "vendor_data2.json" and known.vendor is None:
            known.vendor = await self._vendor.of(known.facts, known.image_ref)
        return _some(tree.document(known.facts, found, known.vendor or self._vendor.static))

    async def _server(self, key: Key) -> _Known:
        now = self._rt.world.monotonic()
        known = self.kept.get(key)
        if known is not None:
            if known.until > now:
                return known
            self._forget(key)
        asker = await who.find(key, self._rt.network)
        server = await self._rt.db.read(lambda tx: servers.get(tx, asker.server_uuid))
        if server is None or (asker.project_id is not None and server.project_id != asker.project_id):
            raise NotFound("There is no such instance.")
        known = _Known(
            key=key,
            facts=replace(
                facts.of_server(server, dhcp_domain=self._settings.dhcp_domain, address=asker.address),
                random_seed=_PLACE,
            ),
            vendor=None,
            image_ref=server.image_ref,
            until=now + self._settings.cache_expiration,
        )
        if self._settings.cache_expiration > 0:
            self._make_room(known, askers=1)
            self._forget(key)
            self.kept[key] = known
        return known

    def _keep(self, known: _Known, path: str, document: tree.Document) -> None:
        size = len(document.body)
        self._make_room(known, size=size)
        if self.kept_bytes + size <= MOST_BYTES and self.kept.get(known.key) is known:
            known.documents[path] = document
            known.size += size
            self.kept_bytes += size

    def _make_room(self, known: _Known, *, askers: int = 0, size: int = 0) -> None:
        """The oldest go first, but never `known` itself."""

        while len(self.kept) + askers > MOST_KEPT or self.kept_bytes + size > MOST_BYTES:
            oldest = next((key for key, each in self.kept.items() if each is not known), None)
            if oldest is None:
                break
            self._forget(oldest)

    def _forget(self, key: Key) -> None:
        known = self.kept.pop(key, None)
        if known is not None:
            self.kept_bytes -= known.size

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
    seed = base64.b64encode(os.urandom(SEED))
    return tree.Document(document.body.replace(_ENCODED_PLACE, seed), document.kind)


def _some(document: tree.Document | None) -> tree.Document:
    if document is None:
        raise NotFound("There is nothing at this path.")
    return document
