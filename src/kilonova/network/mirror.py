"""A copy of what Neutron holds, kept up by reading whole collections now and then and named documents on hints.

Nothing is remembered beyond the process: a new one reads everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from kilonova.network.hints import KINDS, Hint
from kilonova.network.rest import Document, NeutronRest


class Mirror:
    """`documents[kind][id]`; `number` grows with every change that was seen."""

    def __init__(self, rest: NeutronRest) -> None:
        self._rest = rest
        self.documents: dict[str, dict[str, Document]] = {kind: {} for kind in KINDS}
        self.number = 0

    async def read_everything(self) -> None:
        """Raises Unavailable; what was read until then counts."""
        for kind in sorted(KINDS):
            await self._read_kind(kind)

    async def read(self, hints: Iterable[Hint]) -> None:
        """What the hints name. Raises Unavailable; the hints are to be kept then."""
        wanted: dict[str, set[str] | None] = {}
        for hint in hints:
            known = wanted.setdefault(hint.kind, set())
            if not hint.ids:
                wanted[hint.kind] = None
            elif known is not None:
                known.update(hint.ids)
        for kind, ids in sorted(wanted.items()):
            if ids is None:
                await self._read_kind(kind)
            else:
                self._take(kind, ids, await self._rest.some(kind, sorted(ids)))

    def put(self, kind: str, document: Document) -> None:
        """A document that Neutron has just answered with."""
        self._take(kind, {document["id"]}, [document])

    def forget(self, ids: Iterable[str]) -> None:
        """What Neutron says that it does not have."""
        for each in ids:
            for known in self.documents.values():
                if known.pop(each, None) is not None:
                    self.number += 1

    async def _read_kind(self, kind: str) -> None:
        documents = await self._rest.all(kind)
        self._take(kind, set(self.documents[kind]), documents)

    def _take(self, kind: str, asked: set[str], answered: Iterable[Document]) -> None:
        known = self.documents[kind]
        found = {document["id"]: document for document in answered}
        for document_id in asked - found.keys():
            if known.pop(document_id, None) is not None:
                self.number += 1
        for document_id, document in found.items():
            if known.get(document_id) != document:
                known[document_id] = document
                self.number += 1
