"""Networking (Neutron) by REST, as the service user."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from kilonova import tracing
from kilonova.clients.tls import trust
from kilonova.errors import Forbidden, Invalid, KilonovaError, NotFound, OverQuota, Unavailable
from kilonova.networking import Document, Filter, NetworkConflict
from kilonova.transactions import forbid_in_transaction

TokenSource = Callable[[], Awaitable[str]]

CONNECTIONS = 20
TRIES = 3
"""Of what may be done twice: reading, and changes that come to the same the second time."""
PAUSE = 0.3
"""Seconds before the second try."""
MOST_IN_URL = 100
"""Values of one filter in one request: what lies in between may cut longer addresses off."""

_SINGULAR = {
    "ports": "port",
    "networks": "network",
    "subnets": "subnet",
    "floatingips": "floatingip",
    "security-groups": "security_group",
    "security-group-rules": "security_group_rule",
    "rbac-policies": "rbac_policy",
}


def singular(collection: str) -> str:
    """The key under which one document of a collection stands."""
    return _SINGULAR[collection]


def plural(collection: str) -> str:
    return "rbac_policies" if collection == "rbac-policies" else _SINGULAR[collection] + "s"


class NetworkClient:
    """`endpoint` without a version, e.g. http://controller:9696; `token` gives the service user's.

    `calls` counts requests sent.
    """

    def __init__(
        self,
        endpoint: str,
        token: TokenSource,
        *,
        forget: Callable[[], None] | None = None,
        timeout: float = 60.0,
        verify: bool | str = True,
    ) -> None:
        """`forget`: told when Networking refuses the token. `verify`: as for Image."""
        self.endpoint = endpoint.rstrip("/").removesuffix("/v2.0") + "/v2.0"
        self.calls = 0
        self._token = token
        self._forget = forget or (lambda: None)
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._http = httpx.AsyncClient(timeout=timeout, verify=trust(verify), limits=limits)

    async def close(self) -> None:
        await self._http.aclose()

    async def find(self, collection: str, filters: Mapping[str, Filter] | None = None) -> list[Document]:
        wanted = {name: _values(value) for name, value in (filters or {}).items()}
        long = next((name for name, values in wanted.items() if len(values) > MOST_IN_URL), None)
        if long is not None:
            values = wanted[long]
            parts = [values[start : start + MOST_IN_URL] for start in range(0, len(values), MOST_IN_URL)]
            found = [await self.find(collection, {**wanted, long: part}) for part in parts]
            return [document for part in found for document in part]
        if not all(wanted.values()):
            return []
        params = [(name, value) for name, values in wanted.items() for value in values]
        answer = await self._ask("GET", f"/{collection}", params=params)
        documents: list[Document] = answer[plural(collection)]
        return documents

    async def show(self, collection: str, id: str) -> Document:
        document: Document = (await self._ask("GET", f"/{collection}/{id}"))[singular(collection)]
        return document

    async def create(self, collection: str, documents: Sequence[Document]) -> list[Document]:
        if len(documents) == 1:
            answer = await self._ask("POST", f"/{collection}", {singular(collection): documents[0]}, again=False)
            return [answer[singular(collection)]]
        answer = await self._ask("POST", f"/{collection}", {plural(collection): list(documents)}, again=False)
        made: list[Document] = answer[plural(collection)]
        return made

    async def update(self, collection: str, id: str, changes: Document) -> Document:
        answer = await self._ask("PUT", f"/{collection}/{id}", {singular(collection): changes})
        document: Document = answer[singular(collection)]
        return document

    async def delete(self, collection: str, id: str) -> None:
        try:
            await self._ask("DELETE", f"/{collection}/{id}")
        except NotFound:
            return

    async def quota(self, project_id: str) -> Mapping[str, Mapping[str, int]]:
        quota: Mapping[str, Mapping[str, int]] = (await self._ask("GET", f"/quotas/{project_id}/details"))["quota"]
        return quota

    async def auto_network(self, project_id: str) -> str:
        try:
            answer = await self._ask("GET", f"/auto-allocated-topology/{project_id}", again=False)
        except (NotFound, Forbidden, NetworkConflict, Invalid) as error:
            raise Invalid(
                f"Unable to automatically allocate a network for project {project_id}", details=error.message
            ) from error
        return str(answer["auto_allocated_topology"]["id"])

    async def _ask(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        params: list[tuple[str, str]] | None = None,
        again: bool = True,
    ) -> Document:
        forbid_in_transaction("Networking's API")
        with tracing.span(f"networking: {method} /{path.split('/')[1]}", tracing.traceparent(), kind="client"):
            return await self._patiently(method, path, body, params, again)

    async def _patiently(
        self, method: str, path: str, body: Document | None, params: list[tuple[str, str]] | None, again: bool
    ) -> Document:
        for left in range(TRIES - 1, -1, -1):
            try:
                return await self._once(method, path, body, params)
            except _NotSent as error:
                failure = error.failure
            except Unavailable as error:
                if not again:
                    raise
                failure = error
            if not left:
                raise failure
            await asyncio.sleep(PAUSE * (TRIES - left))
        raise AssertionError("unreachable")

    async def _once(
        self, method: str, path: str, body: Document | None, params: list[tuple[str, str]] | None
    ) -> Document:
        answer = await self._send(method, path, body, params)
        if answer.status_code == 401:
            # Nothing was done: the token was too old for Networking.
            self._forget()
            answer = await self._send(method, path, body, params)
        if answer.status_code >= 300:
            raise _error(answer)
        found: Document = answer.json() if answer.content else {}
        return found

    async def _send(
        self, method: str, path: str, body: Document | None, params: list[tuple[str, str]] | None
    ) -> httpx.Response:
        headers = {"X-Auth-Token": await self._token()}
        self.calls += 1
        try:
            return await self._http.request(
                method, self.endpoint + path, json=body, params=tuple(params or ()), headers=headers
            )
        except httpx.ConnectError as error:
            raise _NotSent(_silent(error)) from error
        except httpx.HTTPError as error:
            raise _silent(error) from error


class _NotSent(Exception):
    """It never reached Networking, so it may be sent again whatever it is."""

    def __init__(self, failure: Unavailable) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _silent(error: Exception) -> Unavailable:
    return Unavailable("The Networking service does not answer.", details=repr(error))


def _values(value: Filter) -> list[str]:
    return [str(value)] if isinstance(value, str | bool) else list(value)


def _error(answer: httpx.Response) -> KilonovaError:
    reason, message = _told(answer)
    details = f"Networking: {answer.status_code} {reason} {answer.text[:500]}"
    match answer.status_code:
        case 400:
            return Invalid(message, details=details)
        case 403:
            return Forbidden(message, details=details)
        case 404:
            return NotFound(message, details=details)
        case 409 | 413 if "OverQuota" in reason:
            return OverQuota(message, details=details)
        case 409:
            return NetworkConflict(message, reason=reason, details=details)
        case _:
            return Unavailable(f"The Networking service answered {answer.status_code}.", details=details)


def _told(answer: httpx.Response) -> tuple[str, str]:
    """Networking's name for what is wrong, and its words."""
    try:
        document: Any = answer.json()
        error = document["NeutronError"]
        if isinstance(error, dict):
            return str(error.get("type", "")), str(error.get("message", ""))
        return "", str(error)
    except (ValueError, KeyError, TypeError):
        return "", f"The Networking service answered {answer.status_code}."
