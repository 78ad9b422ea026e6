"""JSON Schema of the values that many requests share, and what becomes of them."""

from __future__ import annotations

from typing import Any, Final

from kilonova.api.fields import Choice, JsonSchema, Part

MAX_INT: Final = 0x7FFFFFFF
HUGE: Final = 10**12

TEXT: JsonSchema = {"type": "string"}
NAME: JsonSchema = {"type": "string", "format": "name", "minLength": 1, "maxLength": 255}
PADDED_NAME: JsonSchema = {**NAME, "format": "name_with_leading_trailing_spaces"}
LENIENT_NAME = Choice(Part(PADDED_NAME, until="2.0"), Part(NAME, since="2.1"))
"""The legacy path takes spaces around names, and strips them where it uses them."""
POSITIVE: JsonSchema = {"type": ["integer", "string"], "pattern": "^[0-9]*$", "minimum": 1, "minLength": 1}
NOT_NEGATIVE: JsonSchema = {**POSITIVE, "minimum": 0}
FQDN: JsonSchema = {"type": "string", "pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255}
UUID: JsonSchema = {"type": "string", "format": "uuid"}

_TRUE = ("True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes")
_FALSE = ("False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no")
BOOLEAN: JsonSchema = {"type": ["boolean", "string"], "enum": [True, *_TRUE, False, *_FALSE]}


def boolean(value: bool | str) -> bool:
    """Of a value that fits BOOLEAN."""
    return value if isinstance(value, bool) else value in _TRUE


def whole(value: float | str) -> int:
    """Of a number that may come as a string; one with more digits than anything here has is as good as any such."""
    if not isinstance(value, str):
        return max(-HUGE, min(int(value), HUGE))
    digits = value.removeprefix("-").lstrip("0")
    return (-1 if value.startswith("-") else 1) * int(digits[:12] or "0")


def bounded(minimum: int, maximum: int = MAX_INT) -> JsonSchema:
    """A whole number that may come as a string."""
    return {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": minimum, "maximum": maximum}


def single(schema: JsonSchema) -> dict[str, Any]:
    """A query parameter that may be given once."""
    return {"type": "array", "items": schema, "maxItems": 1}


def multi(schema: JsonSchema) -> dict[str, Any]:
    """A query parameter that may be given several times; mostly the last one counts."""
    return {"type": "array", "items": schema}


def loose_boolean(text: str) -> bool | None:
    """A boolean as people write it in a query; None when it is none."""
    lowered = text.strip().lower()
    if lowered in ("1", "t", "true", "on", "y", "yes"):
        return True
    return False if lowered in ("0", "f", "false", "off", "n", "no") else None
