"""Callers' tokens, against an Identity of the test's own that speaks Keystone's v3."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from kilonova.clients.identity import CACHE_TIME, IdentityClient, IdentityTokens
from kilonova.errors import Unauthorized, Unavailable


class Keystone:
    """Tokens by name; counts what it is asked."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.logins = 0
        self.asked = 0
        self.service = "s1"
        self.down = False

    def add(
        self, token: str, *, roles: tuple[str, ...] = ("member",), expires: str = "2099-01-01T00:00:00Z", **kw: Any
    ) -> None:
        self.tokens[token] = {
            "user": {"id": "u", "domain": {"id": "default"}},
            "project": {"id": "p", "domain": {"id": "default"}},
            "roles": [{"name": role} for role in roles],
            "expires_at": expires,
        } | kw

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        if request.method == "POST":
            self.logins += 1
            assert json.loads(request.content)["auth"]["identity"]["password"]["user"]["name"] == "nova"
            body = {"token": {"expires_at": "2099-01-01T00:00:00Z"}}
            return httpx.Response(201, json=body, headers={"X-Subject-Token": self.service})
        self.asked += 1
        if request.headers["X-Auth-Token"] != self.service:
            return httpx.Response(401)
        token = self.tokens.get(request.headers["X-Subject-Token"])
        expired = token is not None and token["expires_at"] < "2026"
        if token is None or (expired and request.url.params.get("allow_expired") != "1"):
            return httpx.Response(404)
        return httpx.Response(200, json={"token": token})


@pytest.fixture
def keystone() -> Keystone:
    return Keystone()


def tokens_of(keystone: Keystone, clock: Callable[[], float] | None = None) -> IdentityTokens:
    client = IdentityClient("http://identity:5000", username="nova", password="x", project="service")
    client._http = httpx.AsyncClient(transport=httpx.MockTransport(keystone))
    return IdentityTokens(client, **({"clock": clock} if clock else {}))


async def test_a_token_is_asked_about_once_and_its_roles_are_lower_case(keystone: Keystone) -> None:
    keystone.add("t", roles=("Member",))
    tokens = tokens_of(keystone)
    for _ in range(3):
        caller = await tokens.validate("t", None, "GET", "/v2.1/servers")
    assert (caller.user_id, caller.project_id, caller.roles) == ("u", "p", frozenset({"member"}))
    assert keystone.asked == 1


async def test_an_unknown_token_is_refused(keystone: Keystone) -> None:
    with pytest.raises(Unauthorized):
        await tokens_of(keystone).validate("nobody", None, "GET", "/v2.1/servers")


async def test_a_revocation_counts_when_the_cache_time_is_over(keystone: Keystone) -> None:
    now = [1000.0]
    keystone.add("t")
    tokens = tokens_of(keystone, lambda: now[0])
    await tokens.validate("t", None, "GET", "/x")
    del keystone.tokens["t"]
    await tokens.validate("t", None, "GET", "/x")
    now[0] += CACHE_TIME + 1
    with pytest.raises(Unauthorized):
        await tokens.validate("t", None, "GET", "/x")


async def test_a_token_that_expires_while_cached_is_refused(keystone: Keystone) -> None:
    now = [0.0]
    keystone.add("t", expires="1970-01-01T00:01:00Z")
    keystone.tokens["t"]["expires_at"] = "2026-12-31T00:00:00Z"
    tokens = tokens_of(keystone, lambda: now[0])
    await tokens.validate("t", None, "GET", "/x")
    now[0] = 1.9e9
    with pytest.raises(Unauthorized):
        await tokens.validate("t", None, "GET", "/x")


async def test_a_service_may_bring_a_users_expired_token(keystone: Keystone) -> None:
    keystone.add("old", expires="2020-01-01T00:00:00Z")
    keystone.add("service", roles=("service",))
    keystone.add("stranger", roles=("member",))
    tokens = tokens_of(keystone)
    caller = await tokens.validate("old", "service", "GET", "/x")
    assert caller.service_roles == {"service"}
    for service in (None, "stranger", "unknown"):
        with pytest.raises(Unauthorized):
            await tokens.validate("old", service, "GET", "/x")


@pytest.mark.parametrize(
    ("rule", "method", "path", "good"),
    [
        ({"service": "compute", "method": "GET", "path": "/v2.1/servers"}, "GET", "/v2.1/servers", True),
        ({"service": "compute", "method": "GET", "path": "/v2.1/servers"}, "POST", "/v2.1/servers", False),
        ({"service": "image", "method": "GET", "path": "/v2.1/servers"}, "GET", "/v2.1/servers", False),
        ({"service": "compute", "method": "GET", "path": "/v2.1/servers/{id}"}, "GET", "/v2.1/servers/1", True),
        ({"service": "compute", "method": "GET", "path": "/v2.1/servers/*"}, "GET", "/v2.1/servers/1/ips", False),
        ({"service": "compute", "method": "GET", "path": "/v2.1/**"}, "GET", "/v2.1/servers/1/ips", True),
        ({"service": "compute", "method": "GET", "path": "/v2.1/servers"}, "GET", "/v2X1/servers", False),
    ],
)
async def test_access_rules_of_application_credentials_are_kept(
    keystone: Keystone, rule: dict[str, str], method: str, path: str, good: bool
) -> None:
    keystone.add("t", application_credential={"id": "a", "access_rules": [rule]})
    tokens = tokens_of(keystone)
    if good:
        await tokens.validate("t", None, method, path)
    else:
        with pytest.raises(Unauthorized):
            await tokens.validate("t", None, method, path)


async def test_a_forgotten_service_token_is_replaced(keystone: Keystone) -> None:
    keystone.add("t")
    keystone.add("t2")
    tokens = tokens_of(keystone)
    await tokens.validate("t", None, "GET", "/x")
    keystone.service = "s2"
    await tokens.validate("t2", None, "GET", "/x")
    assert keystone.logins == 2


async def test_without_identity_known_tokens_go_on_and_others_are_told_to_come_back(keystone: Keystone) -> None:
    keystone.add("t")
    keystone.add("t2")
    tokens = tokens_of(keystone)
    await tokens.validate("t", None, "GET", "/x")
    keystone.down = True
    await tokens.validate("t", None, "GET", "/x")
    with pytest.raises(Unavailable):
        await tokens.validate("t2", None, "GET", "/x")
