"""Bodies of aggregates."""

from __future__ import annotations

from kilonova.api.fields import Choice, Field, JsonSchema, Object, Part, Schema, body
from kilonova.api.types import FQDN, LENIENT_NAME, PADDED_NAME, UUID

_ZONE_NAME: JsonSchema = {"type": "string", "minLength": 1, "maxLength": 255, "format": "az_name"}
_PADDED_ZONE_NAME: JsonSchema = {**_ZONE_NAME, "format": "az_name_with_leading_trailing_spaces"}
_NULL: JsonSchema = {"type": "null"}
_ZONE = Choice(
    Part({"oneOf": [_PADDED_ZONE_NAME, _NULL]}, until="2.0"), Part({"oneOf": [_ZONE_NAME, _NULL]}, since="2.1")
)

CREATE = body("aggregate", Object(Field("name", LENIENT_NAME, required=True), Field("availability_zone", _ZONE)))
UPDATE = body(
    "aggregate",
    Object(
        Field("name", PADDED_NAME),
        Field("availability_zone", _ZONE),
        extra={"anyOf": [{"required": ["name"]}, {"required": ["availability_zone"]}]},
    ),
)

_HOST = Object(Field("host", FQDN, required=True))
ADD_HOST = body("add_host", _HOST)
REMOVE_HOST = body("remove_host", _HOST)
SET_METADATA = body(
    "set_metadata",
    Object(
        Field(
            "metadata",
            {
                "type": "object",
                "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "null"], "maxLength": 255}},
                "additionalProperties": False,
            },
            required=True,
        )
    ),
)
IMAGES = Schema(
    Object(
        Field(
            "cache",
            {"type": "array", "minItems": 1, "items": Object(Field("id", UUID, required=True))},
            required=True,
        )
    )
)
