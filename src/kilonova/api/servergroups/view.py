"""What a server group looks like."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import Out, View
from kilonova.db.server_groups import ServerGroup

Members = dict[str, list[str]]
"""Servers by the group's UUID."""


def _policies(group: ServerGroup, _: Members) -> list[str]:
    return [group.policy]


def _nothing(group: ServerGroup, _: Members) -> dict[str, Any]:
    return {}


def _members(group: ServerGroup, members: Members) -> list[str]:
    return members.get(group.uuid, [])


VIEW = View(
    Out("id", "uuid"),
    Out("name", "name"),
    Out("policies", _policies, until="2.63"),
    Out("policy", "policy", since="2.64"),
    Out("rules", "rules", since="2.64"),
    Out("members", _members),
    Out("metadata", _nothing, until="2.63"),
    Out("project_id", "project_id", since="2.13"),
    Out("user_id", "user_id", since="2.13"),
)
