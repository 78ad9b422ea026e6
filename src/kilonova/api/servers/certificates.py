"""`trusted_image_certificates`: by whom an image may be signed."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request


def trusted(request: Request, asked: dict[str, Any], rule: str) -> list[str] | None:
    """Ids of the certificates that the caller trusts, None where none are named. Raises Forbidden."""
    named: list[str] | None = asked.get("trusted_image_certificates")
    if named:
        context = request.context
        request.authorize(f"{rule}:trusted_certs", {"project_id": context.project_id, "user_id": context.user_id})
    return named or None


def token_of(request: Request) -> str:
    """The caller's, with which the key manager is asked on the caller's behalf."""
    return request.headers.get(b"x-auth-token", b"").decode("latin-1")
