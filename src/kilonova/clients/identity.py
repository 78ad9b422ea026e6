"""Identity (Keystone): our own token as the service user, and what others' tokens stand for."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from kilonova.api.context import NOT_GOOD, Caller
from kilonova.clients.tls import trust
from kilonova.errors import Unauthorized, Unavailable
from kilonova.transactions import forbid_in_transaction

RENEW_BEFORE = 120.0
"""Seconds before its end at which the service user's token is replaced."""

CACHE_TIME = 300.0
"""Seconds for which a token's meaning is believed: so late may a revocation be noticed."""

REFUSED_TIME = 10.0
"""Seconds for which a refused token is refused without asking again."""

CACHE_SIZE = 5000

DEFAULT_DOMAIN: Mapping[str, str] = {"id": "default"}

ACCESS_RULES = {"OpenStack-Identity-Access-Rules": "1.0"}


def _now() -> float:
    return dt.datetime.now(dt.UTC).timestamp()


def _timestamp(text: str) -> float:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class IdentityClient:
    """The service user's session. `url` is Keystone's, with or without /v3."""

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str,
        project: str,
        user_domain: Mapping[str, str] = DEFAULT_DOMAIN,
        project_domain: Mapping[str, str] = DEFAULT_DOMAIN,
        timeout: float = 20.0,
        verify: bool | str = True,
    ) -> None:
        """Domains as Identity's API takes them. `verify`: a file of authorities, or whether certificates count."""
        self.url = url.rstrip("/").removesuffix("/v3") + "/v3"
        self._scope = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": username, "domain": dict(user_domain), "password": password}},
                },
                "scope": {"project": {"name": project, "domain": dict(project_domain)}},
            }
        }
        self._http = httpx.AsyncClient(timeout=timeout, verify=trust(verify), limits=httpx.Limits(max_connections=20))
        self._token: str | None = None
        self._catalog: list[dict[str, Any]] = []
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        await self._http.aclose()

    async def service_token(self) -> str:
        """A token of the service user that is good for a while yet. Raises Unavailable."""
        if self._token is None or _now() > self._until - RENEW_BEFORE:
            async with self._asking:
                if self._token is None or _now() > self._until - RENEW_BEFORE:
                    await self._authenticate()
        assert self._token is not None
        return self._token

    def forget_token(self) -> None:
        """Another service refused it: the next one is new."""
        self._token = None

    async def endpoint(self, service_type: str, region: str | None = None) -> str | None:
        """Where the catalog has a service: the internal address, else the public one. Raises Unavailable."""
        await self.service_token()
        found = {
            endpoint["interface"]: endpoint["url"]
            for service in self._catalog
            if service["type"] == service_type
            for endpoint in service["endpoints"]
            if region is None or endpoint.get("region_id", endpoint.get("region")) == region
        }
        return found.get("internal") or found.get("public")

    async def _authenticate(self) -> None:
        answer = await self._send("POST", "/auth/tokens", json=self._scope)
        if answer.status_code != 201:
            raise Unavailable(
                "Identity does not let this service in.",
                details=f"token of the service user: {answer.status_code} {answer.text[:300]}",
            )
        document = answer.json()["token"]
        self._catalog = document.get("catalog", [])
        self._until = _timestamp(document["expires_at"])
        self._token = answer.headers["X-Subject-Token"]

    async def ask(self, method: str, path: str, **kw: Any) -> httpx.Response:
        """A request as the service user; a token that Identity has forgotten is replaced once."""
        headers = kw.pop("headers", {})
        answer = await self._send(method, path, headers=headers | {"X-Auth-Token": await self.service_token()}, **kw)
        if answer.status_code == 401:
            self._token = None
            answer = await self._send(
                method, path, headers=headers | {"X-Auth-Token": await self.service_token()}, **kw
            )
        return answer

    async def _send(self, method: str, path: str, **kw: Any) -> httpx.Response:
        forbid_in_transaction("Identity's API")
        try:
            return await self._http.request(method, self.url + path, **kw)
        except httpx.HTTPError as error:
            raise Unavailable("The Identity service does not answer.", details=repr(error)) from error


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    expires: float
    rules: list[dict[str, Any]] | None
    """Of an application credential; None: no restriction."""


class IdentityTokens:
    """What tokens stand for, asked of Keystone and believed for `cache_time` seconds."""

    def __init__(
        self,
        client: IdentityClient,
        *,
        cache_time: float = CACHE_TIME,
        service_type: str = "compute",
        service_roles: frozenset[str] = frozenset({"service"}),
        clock: Callable[[], float] = _now,
    ) -> None:
        self._client = client
        self._cache_time = cache_time
        self._service_type = service_type
        self._service_roles = service_roles
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, _Known | None]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Known | None]] = {}

    async def validate(self, token: str, service_token: str | None, method: str, path: str) -> Caller:
        """Raises Unauthorized for a token that is not good for this request, Unavailable without Identity."""
        service = await self._service(service_token)
        known = await self._known(token, allow_expired=service is not None)
        if known is None or (service is None and known.expires <= self._clock()):
            raise Unauthorized(NOT_GOOD)
        if service is None and known.rules is not None and not self._permitted(known.rules, method, path):
            raise Unauthorized(NOT_GOOD)
        if service is None:
            return known.caller
        caller = known.caller
        return Caller(
            user_id=caller.user_id,
            project_id=caller.project_id,
            roles=caller.roles,
            user_domain_id=caller.user_domain_id,
            project_domain_id=caller.project_domain_id,
            service_roles=service.caller.roles,
        )

    async def exists(self, project_id: str) -> bool | None:
        """Whether there is such a project; None when Identity does not say."""
        try:
            answer = await self._client.ask("GET", f"/projects/{quote(project_id, safe='')}")
        except Unavailable:
            return None
        if answer.status_code == 404:
            return False
        return True if answer.status_code == 200 else None

    async def _service(self, service_token: str | None) -> _Known | None:
        """The service that speaks for the user; a service token that is no good is an error, not nothing."""
        if service_token is None:
            return None
        known = await self._known(service_token, allow_expired=False)
        if known is None or known.expires <= self._clock():
            raise Unauthorized(NOT_GOOD)
        return known if known.caller.roles & self._service_roles else None

    async def _known(self, token: str, *, allow_expired: bool) -> _Known | None:
        key = hashlib.sha256(f"{allow_expired}:{token}".encode()).digest()
        cached = self._cache.get(key)
        if cached is not None and cached[0] > self._clock():
            return cached[1]
        # Of several requests with a token that is not known yet, one asks.
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._ask(token, allow_expired))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        known = await asyncio.shield(task)
        self._cache[key] = (self._clock() + (self._cache_time if known else REFUSED_TIME), known)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return known

    async def _ask(self, token: str, allow_expired: bool) -> _Known | None:
        answer = await self._client.ask(
            "GET",
            "/auth/tokens?nocatalog" + ("&allow_expired=1" if allow_expired else ""),
            headers={"X-Subject-Token": token, **ACCESS_RULES},
        )
        if answer.status_code in (400, 401, 404):
            return None
        if answer.status_code != 200:
            raise Unavailable(
                "Identity could not check the token.", details=f"{answer.status_code} {answer.text[:300]}"
            )
        found = answer.json()["token"]
        project = found.get("project") or {}
        credential = found.get("application_credential") or {}
        return _Known(
            caller=Caller(
                user_id=found["user"]["id"],
                project_id=project.get("id"),
                roles=frozenset(role["name"].lower() for role in found.get("roles", ())),
                user_domain_id=(found["user"].get("domain") or {}).get("id"),
                project_domain_id=(project.get("domain") or {}).get("id"),
            ),
            expires=_timestamp(found["expires_at"]),
            rules=credential.get("access_rules"),
        )

    def _permitted(self, rules: list[dict[str, Any]], method: str, path: str) -> bool:
        return any(
            rule.get("service") == self._service_type
            and rule.get("method") == method
            and re.fullmatch(_pattern(rule.get("path", "")), path) is not None
            for rule in rules
        )


def _pattern(path: str) -> str:
    """An access rule's path: `*` and `{name}` stand for one part, `**` for any number of them."""
    pattern = re.escape(path).replace(r"\*\*", ".*").replace(r"\*", "[^/]+")
    return re.sub(r"\\\{[^/}]*\\\}", "[^/]+", pattern)
