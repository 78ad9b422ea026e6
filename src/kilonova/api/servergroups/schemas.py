"""Bodies and queries of server groups."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import Field, JsonSchema, Object, QuerySchema, body
from kilonova.api.types import LENIENT_NAME, NOT_NEGATIVE, POSITIVE, TEXT, multi

_HARD = ["anti-affinity", "affinity"]
_ALL = [*_HARD, "soft-anti-affinity", "soft-affinity"]


def _one_of(policies: list[str]) -> dict[str, Any]:
    return {"type": "array", "prefixItems": [{"type": "string", "enum": policies}], "minItems": 1, "maxItems": 1}


_RULES: JsonSchema = {
    "type": "object",
    "properties": {"max_server_per_host": POSITIVE},
    "additionalProperties": False,
}

CREATE = body(
    "server_group",
    Object(
        Field("name", LENIENT_NAME, required=True),
        Field("policies", _one_of(_HARD), until="2.14", required=True),
        Field("policies", _one_of(_ALL), since="2.15", until="2.63", required=True),
        Field("policy", {"type": "string", "enum": _ALL}, since="2.64", required=True),
        Field("rules", _RULES, since="2.64"),
    ),
)

LIST = QuerySchema(
    Field("all_projects", multi(TEXT)),
    Field("limit", multi(NOT_NEGATIVE)),
    Field("offset", multi(NOT_NEGATIVE)),
    open_until="2.74",
)
