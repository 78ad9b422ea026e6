"""`/os-security-groups` and `/os-security-group-rules`; and what servers show of their groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilonova.api.fields import Field, Object, Schema
from kilonova.api.requests import Request
from kilonova.api.types import whole
from kilonova.api.validation import is_uuid
from kilonova.compute import network_proxies
from kilonova.errors import Invalid
from kilonova.networking import Document

_TEXT = {"type": "string", "minLength": 0, "maxLength": 255}
GROUP = Schema(
    Object(
        Field(
            "security_group",
            Object(Field("name", _TEXT, required=True), Field("description", _TEXT, required=True), open_until="2.104"),
            required=True,
        ),
        open_until="2.104",
    )
)
RULE = Schema(
    Object(
        Field(
            "security_group_rule",
            Object(
                Field("group_id", {"type": ["string", "null"], "format": "uuid"}),
                Field("parent_group_id", {"type": "string", "format": "uuid"}, required=True),
                open_until="2.104",
            ),
            required=True,
        ),
        open_until="2.104",
    )
)


async def index(request: Request) -> Any:
    of_all = request.context.is_admin and "all_tenants" in request.query
    found = await network_proxies.groups(request.runtime, request.context, of_all=of_all)
    start = whole(request.query.last("offset") or 0)
    found = found[start : start + request.page_limit()]
    views = await views_of(request, found)
    return {"security_groups": sorted(views, key=lambda view: (view["tenant_id"], view["name"]))}


async def show(request: Request) -> Any:
    found = await network_proxies.group(request.runtime, request.context, _id(request))
    return {"security_group": (await views_of(request, [found]))[0]}


async def create(request: Request) -> Any:
    asked = request.body["security_group"]
    made = await network_proxies.create_group(request.runtime, request.context, asked["name"], asked["description"])
    return {"security_group": (await views_of(request, [made]))[0]}


async def update(request: Request) -> Any:
    asked = request.body["security_group"]
    changed = await network_proxies.update_group(
        request.runtime, request.context, _id(request), asked["name"], asked["description"]
    )
    return {"security_group": (await views_of(request, [changed]))[0]}


async def delete(request: Request) -> None:
    await network_proxies.delete_group(request.runtime, request.context, _id(request))


async def create_rule(request: Request) -> Any:
    asked = request.body["security_group_rule"]
    made = await network_proxies.create_rule(request.runtime, request.context, asked)
    known = await network_proxies.groups_by_id(request.runtime, {made["remote_group_id"] or ""} - {""})
    return {"security_group_rule": _rule(made, known)}


async def delete_rule(request: Request) -> None:
    await network_proxies.delete_rule(request.runtime, request.context, _id(request))


def _id(request: Request) -> str:
    if not is_uuid(request.params["id"]):
        raise Invalid("Security group id should be uuid")
    return request.params["id"]


async def views_of(request: Request, groups: list[Document]) -> list[dict[str, Any]]:
    """Groups with their ingress rules; a rule whose source is gone is left out."""
    known = await network_proxies.group_names(request.runtime, groups)
    return [
        {
            "id": group["id"],
            "name": group["name"],
            "description": group.get("description", ""),
            "tenant_id": group.get("project_id", ""),
            "rules": [
                _rule(rule, known)
                for rule in group.get("security_group_rules", ())
                if rule["direction"] == "ingress"
                and (not rule.get("remote_group_id") or rule["remote_group_id"] in known)
            ],
        }
        for group in groups
    ]


def _rule(rule: Document, known: Mapping[str, Document]) -> dict[str, Any]:
    protocol = rule.get("protocol")
    lowest, highest = rule.get("port_range_min"), rule.get("port_range_max")
    if protocol and lowest is None and highest is None:
        lowest, highest = (1, 65535) if protocol.upper() in ("TCP", "UDP") else (-1, -1)
    source = known.get(rule.get("remote_group_id") or "")
    return {
        "id": rule["id"],
        "parent_group_id": rule["security_group_id"],
        "ip_protocol": protocol,
        "from_port": lowest,
        "to_port": highest,
        "group": {"name": source["name"], "tenant_id": source.get("project_id", "")} if source is not None else {},
        "ip_range": {"cidr": rule.get("remote_ip_prefix") or "0.0.0.0/0"} if source is None else {},
    }
