"""Who asks: the caller of a request, as Identity vouches for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """Goes from the HTTP layer into the domain's verbs; holds no token."""

    user_id: str
    project_id: str
    roles: frozenset[str]
    request_id: str
    is_admin: bool = False
    """By the policy rule `context_is_admin`."""
    user_domain_id: str | None = None
    project_domain_id: str | None = None
    service_roles: frozenset[str] = frozenset()
    """Of the service token, when one came along."""
    global_request_id: str | None = None


def on_behalf_of(user_id: str, project_id: str, request_id: str) -> RequestContext:
    """The cloud itself, at work on what is this user's: no lock holds it back."""
    return RequestContext(
        user_id=user_id, project_id=project_id, roles=frozenset(), request_id=request_id, is_admin=True
    )
