"""Bodies and queries of key pairs."""

from __future__ import annotations

from kilonova.api.fields import Choice, Field, Object, Part, QuerySchema, body
from kilonova.api.types import NAME, NOT_NEGATIVE, PADDED_NAME, TEXT, multi


def _name(pattern: str) -> dict[str, object]:
    return {"allOf": [NAME, {"type": "string", "pattern": pattern, "minLength": 1, "maxLength": 255}]}


_NAME = Choice(
    Part(PADDED_NAME, until="2.0"),
    Part(_name(r"^[_\- a-zA-Z0-9]+$"), until="2.91"),
    Part(_name(r"^[_\-\@\. a-zA-Z0-9]+$"), since="2.92"),
)

CREATE = body(
    "keypair",
    Object(
        Field("name", _NAME, required=True),
        Field("public_key", TEXT, until="2.91"),
        Field("public_key", TEXT, since="2.92", required=True),
        Field("type", {"type": "string", "enum": ["ssh", "x509"]}, since="2.2"),
        Field("user_id", {"type": "string", "maxLength": 255}, since="2.10"),
    ),
)

_USER = Field("user_id", multi(TEXT), since="2.10")

ONE = QuerySchema(_USER, open_until="2.74")
LIST = QuerySchema(
    _USER,
    Field("limit", multi(NOT_NEGATIVE), since="2.35"),
    Field("marker", multi(TEXT), since="2.35"),
    open_until="2.74",
)
