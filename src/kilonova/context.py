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
