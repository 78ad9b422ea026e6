"""Bodies and queries of services."""

from __future__ import annotations

from kilonova.api.fields import Field, JsonSchema, Object, QuerySchema, Schema
from kilonova.api.types import BOOLEAN, FQDN, TEXT, multi

_REASON: JsonSchema = {"type": "string", "minLength": 1, "maxLength": 255}

UPDATE = Schema(
    Object(
        Field("host", FQDN, until="2.52", required=True),
        Field("binary", _REASON, until="2.52", required=True),
        Field("status", {"type": "string", "enum": ["enabled", "disabled"]}, since="2.53"),
        Field("disabled_reason", _REASON),
        Field("forced_down", BOOLEAN, since="2.11"),
    )
)

LIST = QuerySchema(Field("host", multi(TEXT)), Field("binary", multi(TEXT)), open_until="2.74")
