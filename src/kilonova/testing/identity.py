"""Tokens known by heart, for tests: `admin`, `member`, `reader` of one project, and `other`, a member of another."""

from __future__ import annotations

from kilonova.api.context import Caller
from kilonova.errors import Unauthorized

PROJECT = "6f70656e737461636b20342065766572"
OTHER_PROJECT = "0123456789abcdef0123456789abcdef"


def caller(user_id: str, *roles: str, project_id: str | None = PROJECT) -> Caller:
    return Caller(
        user_id=user_id,
        project_id=project_id,
        roles=frozenset(roles),
        user_domain_id="default",
        project_domain_id="default",
    )


CALLERS = {
    "admin": caller("admin", "admin", "manager", "member", "reader"),
    "manager": caller("manager", "manager", "member", "reader"),
    "member": caller("member", "member", "reader"),
    "reader": caller("reader", "reader"),
    "other": caller("other", "member", "reader", project_id=OTHER_PROJECT),
    "other-admin": caller("other-admin", "admin", "manager", "member", "reader", project_id=OTHER_PROJECT),
    "nobody": caller("nobody"),
    "unscoped": caller("unscoped", "admin", project_id=None),
}


class StaticTokens:
    """A token is the name of its caller."""

    def __init__(self, callers: dict[str, Caller] | None = None) -> None:
        self.callers = CALLERS if callers is None else callers

    async def validate(self, token: str, service_token: str | None, method: str, path: str) -> Caller:
        found = self.callers.get(token)
        if found is None:
            raise Unauthorized("The request you have made requires authentication.")
        return found
