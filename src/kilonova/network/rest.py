"""Neutron's REST API as the role `network` uses it: whole collections, named documents, ports of its own, reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import httpx

from kilonova.errors import Conflict, Invalid, NotFound, Unavailable
from kilonova.network.hints import BINDINGS

Document = dict[str, Any]
"""As Neutron's API shows it."""

TokenSource = Callable[[], Awaitable[str]]

PAGE = 200
"""Documents in one page: Neutron answers one request at a time on SQLite, and others wait meanwhile."""

IDS = 50
"""In one request, which names them in its URL."""

WHOLE = frozenset({BINDINGS})
"""Collections without pages: they stay small."""

PATHS = {"policies": "qos/policies"}
"""Where a collection is not at its own name."""


class NeutronRest:
    """`endpoint` without a version. All methods raise Unavailable when Neutron does not answer (properly)."""

    def __init__(self, endpoint: str, token: TokenSource, *, timeout: float = 60.0, verify: bool | str = True) -> None:
        self.endpoint = endpoint.rstrip("/").removesuffix("/v2.0")
        self._token = token
        self._http = httpx.AsyncClient(
            timeout=timeout, limits=httpx.Limits(max_connections=4), trust_env=False, verify=verify
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def all(self, kind: str) -> list[Document]:
        """Every document of a collection, a page at a time in the order of their ids."""
        if kind in WHOLE:
            return await self._whole(kind)
        found: list[Document] = []
        query: list[tuple[str, str]] = [("limit", str(PAGE)), ("sort_key", "id"), ("sort_dir", "asc")]
        while True:
            marker = [("marker", found[-1]["id"])] if found else []
            page = await self._documents(kind, [*query, *marker])
            found += page
            if len(page) < PAGE:
                return found

    async def _whole(self, kind: str) -> list[Document]:
        try:
            return await self._documents(kind, [])
        except NotFound:
            # A Neutron with our driver of an earlier release, as there is while both are brought to a new one.
            return []

    async def some(self, kind: str, ids: Iterable[str]) -> list[Document]:
        """Those of the named documents that exist."""
        found: list[Document] = []
        for part in _parts(ids, IDS):
            found += await self._documents(kind, [("id", each) for each in part])
        return found

    async def where(self, kind: str, conditions: dict[str, str]) -> list[Document]:
        """The documents of a collection whose fields have these values; for collections that stay small."""
        return await self._documents(kind, list(conditions.items()))

    async def create(self, kind: str, fields: Document) -> Document:
        """`kind`: a collection whose name ends in `s`. Raises Conflict, Invalid."""
        made: Document = (await self._call("POST", kind, json={kind[:-1]: fields}))[kind[:-1]]
        return made

    async def create_port(self, **fields: Any) -> Document:
        """Raises Conflict when there is no address left, or the network is gone."""
        return await self.create("ports", fields)

    async def update_port(self, port_id: str, **fields: Any) -> Document:
        """Raises NotFound, Conflict."""
        changed: Document = (await self._call("PUT", f"ports/{port_id}", json={"port": fields}))["port"]
        return changed

    async def delete_port(self, port_id: str) -> None:
        """A port that is gone already is as well."""
        try:
            await self._call("DELETE", f"ports/{port_id}")
        except NotFound:
            return

    async def report(
        self, *, ports: Sequence[dict[str, str]], routers: dict[str, str], floatingips: dict[str, str]
    ) -> list[str]:
        """Tell what planes have done (see plugin.py); the ids that Neutron does not know come back."""
        report = {"ports": list(ports), "routers": routers, "floatingips": floatingips}
        answer = await self._call("POST", "plane-reports", json={"plane_report": report})
        unknown: list[str] = answer["plane_report"]["unknown"]
        return unknown

    async def _documents(self, kind: str, query: list[tuple[str, str]]) -> list[Document]:
        answer = await self._call("GET", PATHS.get(kind, kind), params=query)
        documents: list[Document] = answer[kind.replace("-", "_")]
        return documents

    async def _call(self, method: str, path: str, **kw: Any) -> Any:
        try:
            answer = await self._http.request(
                method, f"{self.endpoint}/v2.0/{path}", headers={"X-Auth-Token": await self._token()}, **kw
            )
        except httpx.HTTPError as error:
            raise Unavailable("The Networking service does not answer.", details=repr(error)) from error
        if answer.is_success:
            return answer.json() if answer.content else {}
        details = f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        refusal = {400: Invalid, 404: NotFound, 409: Conflict}.get(answer.status_code, Unavailable)
        raise refusal(f"The Networking service answered {answer.status_code}.", details=details)


def _parts(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while part := list(islice(rest, size)):
        yield part
