"""Bodies and queries of flavors."""

from __future__ import annotations

from kilonova.api.fields import Field, JsonSchema, Object, QuerySchema, Schema, body
from kilonova.api.types import BOOLEAN, LENIENT_NAME, NOT_NEGATIVE, TEXT, bounded, multi

_DESCRIPTION: JsonSchema = {"type": ["string", "null"], "format": "printable", "maxLength": 65535}

CREATE = body(
    "flavor",
    Object(
        Field("name", LENIENT_NAME, required=True),
        Field(
            "id",
            {
                "type": ["string", "number", "null"],
                "minLength": 1,
                "maxLength": 255,
                "pattern": "^(?! )[a-zA-Z0-9. _-]+(?<! )$",
            },
        ),
        Field("ram", bounded(1), required=True),
        Field("vcpus", bounded(1), required=True),
        Field("disk", bounded(0), required=True),
        Field("OS-FLV-EXT-DATA:ephemeral", bounded(0)),
        Field("swap", bounded(0)),
        Field(
            "rxtx_factor",
            {
                "type": ["number", "string"],
                "pattern": r"^[0-9]+(\.[0-9]+)?$",
                "exclusiveMinimum": 0,
                "maximum": 3.40282e38,
            },
            until="2.101",
        ),
        Field("os-flavor-access:is_public", BOOLEAN),
        Field("description", _DESCRIPTION, since="2.55"),
    ),
)

UPDATE = body("flavor", Object(Field("description", _DESCRIPTION, required=True)))

_SORT_KEYS = [
    "created_at", "description", "disabled", "ephemeral_gb", "flavorid", "id", "is_public", "memory_mb", "name",
    "root_gb", "rxtx_factor", "swap", "updated_at", "vcpu_weight", "vcpus",
]  # fmt: skip

LIST = QuerySchema(
    Field("limit", multi(NOT_NEGATIVE)),
    Field("marker", multi(TEXT)),
    Field("is_public", multi(TEXT)),
    Field("minRam", multi(TEXT)),
    Field("minDisk", multi(TEXT)),
    Field("sort_key", multi({"type": "string", "enum": _SORT_KEYS}), until="2.101"),
    Field(
        "sort_key",
        multi({"type": "string", "enum": [key for key in _SORT_KEYS if key != "rxtx_factor"]}),
        since="2.102",
    ),
    Field("sort_dir", multi({"type": "string", "enum": ["asc", "desc"]})),
    Field("name", multi(TEXT), since="2.102"),
    open_until="2.74",
)

_ACCESS = Object(Field("tenant", {"type": "string", "minLength": 1, "maxLength": 255}, required=True))
ADD_ACCESS = body("addTenantAccess", _ACCESS)
REMOVE_ACCESS = body("removeTenantAccess", _ACCESS)

_SPECS: JsonSchema = {
    "type": "object",
    "patternProperties": {"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "number"], "maxLength": 255}},
    "additionalProperties": False,
}
CREATE_SPECS = body("extra_specs", _SPECS)
UPDATE_SPEC = Schema({**_SPECS, "minProperties": 1, "maxProperties": 1})
