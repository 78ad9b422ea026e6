"""From a token to a caller: what the HTTP layer needs of Identity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kilonova.context import RequestContext
from kilonova.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    # Whoever only asks Identity needs no policy engine.
    from kilonova.api.policy import Policy

NOT_GOOD = "The request you have made requires authentication."
_REQUEST_ID = re.compile(rb"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whom a token stands for. `project_id` is None for a token of no project (system, domain, unscoped)."""

    user_id: str
    project_id: str | None
    roles: frozenset[str]
    user_domain_id: str | None = None
    project_domain_id: str | None = None
    service_roles: frozenset[str] = frozenset()


class TokenValidator(Protocol):
    """`clients.identity.IdentityTokens` asks Keystone; `testing.identity.StaticTokens` knows a few by heart."""

    async def validate(self, token: str, service_token: str | None, method: str, path: str) -> Caller:
        """Raises Unauthorized for a token that is not good for this request, Unavailable without Identity."""
        ...


def _token(value: bytes | None) -> str | None:
    """A token's text; raises Unauthorized for what cannot be one, so that it is sent nowhere."""
    if not value:
        return None
    text = value.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise Unauthorized(NOT_GOOD)
    return text


async def authenticate(
    headers: dict[bytes, bytes], method: str, path: str, request_id: str, validator: TokenValidator, policy: Policy
) -> RequestContext:
    """Raises Unauthorized without a good token, and Forbidden for one of no project."""
    token = _token(headers.get(b"x-auth-token") or headers.get(b"x-storage-token"))
    if token is None:
        raise Unauthorized(NOT_GOOD)
    caller = await validator.validate(token, _token(headers.get(b"x-service-token")), method, path)
    if caller.project_id is None:
        raise Forbidden("This service needs a token of a project; the token given is of none.")
    given = headers.get(b"x-openstack-request-id")
    return RequestContext(
        user_id=caller.user_id,
        project_id=caller.project_id,
        roles=caller.roles,
        request_id=request_id,
        is_admin=policy.is_admin(caller.roles),
        user_domain_id=caller.user_domain_id,
        project_domain_id=caller.project_domain_id,
        service_roles=caller.service_roles,
        global_request_id=given.decode() if given and _REQUEST_ID.fullmatch(given) else None,
    )
