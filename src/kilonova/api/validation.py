"""Bodies and queries against their schemas, and the message for what does not fit.

JSON Schema 2020-12, with what this API has always had beyond it: bounds hold for numbers in strings too, and
some formats are its own. Messages name the field, its value and what would be accepted.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
import unicodedata
import uuid
from typing import Any, cast

import jsonschema_rs
from jsonschema_rs import ValidationError, ValidationErrorKind

from kilonova.errors import Invalid

_PRINTABLE_NAME = "printable characters. Can not start or end with whitespace."
_REASONS = {
    "name": _PRINTABLE_NAME,
    "name_with_leading_trailing_spaces": "printable characters with at least one non space character",
    "az_name": "printable characters except :.Can not start or end with whitespace.",
    "az_name_with_leading_trailing_spaces": "printable characters except :, with at least one non space character",
}


def is_printable(text: str) -> bool:
    """No control characters, and no separators but spaces."""
    for char in text:
        category = unicodedata.category(char)
        if category[0] == "C" or (category[0] == "Z" and category != "Zs"):
            return False
    return True


def _is_space(char: str) -> bool:
    return unicodedata.category(char) == "Zs"


def is_name(text: str) -> bool:
    return is_printable(text) and not (text and (_is_space(text[0]) or _is_space(text[-1])))


def is_padded_name(text: str) -> bool:
    return is_printable(text) and not all(_is_space(char) for char in text)


def _is_az_name(text: str) -> bool:
    return ":" not in text and is_name(text)


def _is_padded_az_name(text: str) -> bool:
    return ":" not in text and is_padded_name(text)


def is_uuid(text: str) -> bool:
    """A UUID in any of the forms that clients send: with and without hyphens, in braces, as a URN."""
    try:
        return str(uuid.UUID(text)).replace("-", "") == _bare(text)
    except ValueError:
        return False


def _bare(text: str) -> str:
    return text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "").lower()


def row_id(text: str) -> int:
    """The number in a path; 0, which no row has, for one that is too large. Raises Invalid for what is none."""
    digits = text.strip().removeprefix("-")
    if not digits.isascii() or not digits.isdigit():
        raise Invalid(f"Invalid input received: id must be an integer, not {text!r}")
    return int(text) if len(digits) < 19 else 0


def is_base64(text: str) -> bool:
    try:
        base64.b64decode(re.sub(r"\s", "", text).encode(), validate=False)
    except (binascii.Error, ValueError):
        return False
    return True


def is_regex(text: str) -> bool:
    if not text:
        return False
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


_TIME = re.compile(
    r"^(\d{4})-?(\d{1,2})-?(\d{1,2})([T ](\d{1,2})(:?(\d{1,2})(:?(\d{1,2})([.,]\d+)?)?)?)?\s*(Z|[+-]\d{2}(:?\d{2})?)?$",
    re.ASCII,
)


def parse_time(text: str) -> dt.datetime:
    """An ISO 8601 time as naive UTC. Raises ValueError."""
    found = _TIME.match(text)
    if not found:
        raise ValueError(text)
    year, month, day, _, hour, _, minute, _, second, fraction, zone, _ = found.groups()
    moment = dt.datetime(  # noqa: DTZ001 - naive UTC is what the database holds
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
        int((fraction or ".0")[1:7].ljust(6, "0")),
    )  # fmt: skip
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        moment = moment - offset if zone[0] == "+" else moment + offset
    return moment


def is_time(text: str) -> bool:
    try:
        parse_time(text)
    except (ValueError, OverflowError):
        return False
    return True


def is_cidr(text: str) -> bool:
    import ipaddress

    if "/" not in text or re.search(r"\s", text):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


FORMATS = {
    "name": is_name,
    "name_with_leading_trailing_spaces": is_padded_name,
    "az_name": _is_az_name,
    "az_name_with_leading_trailing_spaces": _is_padded_az_name,
    "printable": is_printable,
    "uuid": is_uuid,
    "base64": is_base64,
    "regex": is_regex,
    "date-time": is_time,
    "cidr": is_cidr,
}


class _Bounds:
    """`minimum` and `maximum` for a number that comes as a string."""

    def __init__(self, parent: dict[str, Any], value: Any, path: list[str | int]) -> None:
        self.bounds = value

    def validate(self, instance: Any) -> None:
        if not isinstance(instance, str):
            return
        try:
            number = float(instance)
        except ValueError:
            return
        text = str(int(number)) if number.is_integer() and abs(number) < 1e15 else instance
        low, high = self.bounds.get("minimum"), self.bounds.get("maximum")
        if low is not None and number < low:
            raise ValueError(f"{text} is less than the minimum of {low}")
        if high is not None and number > high:
            raise ValueError(f"{text} is greater than the maximum of {high}")
        above = self.bounds.get("exclusiveMinimum")
        if above is not None and number <= above:
            raise ValueError(f"{text} is less than or equal to the minimum of {above}")


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum")


def _with_bounds(node: Any) -> Any:
    if isinstance(node, dict):
        node = {key: _with_bounds(value) for key, value in node.items()}
        types = node.get("type")
        if isinstance(types, list) and "string" in types and any(key in node for key in _BOUNDS):
            node["numericBounds"] = {key: node[key] for key in _BOUNDS if key in node}
    elif isinstance(node, list):
        node = [_with_bounds(item) for item in node]
    return node


def _relaxed(node: Any) -> Any:
    """Unknown properties let pass, as the legacy path does, but where names follow a pattern."""
    if isinstance(node, dict):
        node = {key: _relaxed(value) for key, value in node.items()}
        if node.get("additionalProperties") is False and "patternProperties" not in node:
            node["additionalProperties"] = True
    elif isinstance(node, list):
        node = [_relaxed(item) for item in node]
    return node


class Validator:
    """One schema at one version. `check` raises Invalid; for the legacy path it also strips what is unknown."""

    __slots__ = ("_compiled", "_is_body", "_known", "_legacy", "_open", "schema")

    def __init__(self, schema: dict[str, Any], *, legacy: bool, is_body: bool) -> None:
        self.schema = schema
        self._legacy = legacy
        self._is_body = is_body
        self._open = schema.get("additionalProperties", True) is not False
        self._known = frozenset(schema.get("properties", ()))
        self._compiled = jsonschema_rs.Draft202012Validator(
            _with_bounds(_relaxed(schema) if legacy else schema),
            formats=cast(Any, FORMATS),
            validate_formats=True,
            keywords={"numericBounds": _Bounds},
        )

    def check(self, value: Any) -> None:
        if not self._compiled.is_valid(value):
            raise Invalid(self._message(value))
        if self._legacy and self._is_body:
            _strip(self.schema, value)

    def check_query(self, query: dict[str, list[str]]) -> dict[str, list[str]]:
        """The parameters that are known; unknown ones are dropped where they are not refused."""
        if not self._compiled.is_valid(query):
            raise Invalid(self._message(query))
        if self._open or self._legacy:
            patterns = self.schema.get("patternProperties", ())
            return {
                name: values
                for name, values in query.items()
                if name in self._known or any(re.search(pattern, name) for pattern in patterns)
            }
        return query

    def _message(self, value: Any) -> str:
        # The same choice among several errors as clients know it: the least deep, alternatives last.
        error = min(self._compiled.iter_errors(value), key=_relevance)
        kind = error.kind
        if isinstance(kind, ValidationErrorKind.Format) and kind.format in _REASONS:
            return f"An invalid 'name' value was provided. The name must be: {_REASONS[kind.format]}"
        path = _keys(value, error.instance_path)
        # The error's own copy of the value has its keys sorted; the caller is shown what he sent.
        instance = _reach(value, path)
        text = _describe(error, instance, _reach(self.schema, error.schema_path[:-1]))
        if not path:
            return text
        if self._is_body:
            return f"Invalid input for field/attribute {path[-1]}. Value: {_shown(instance)}. {text}"
        return f"Invalid input for query parameters {path[0]}. Value: {_shown(instance)}. {text}"


def _keys(value: Any, path: list[str | int]) -> list[str | int]:
    """The path with properties' names as they stand: the validator tells "1", "01" and "+1" as the number 1."""
    found: list[str | int] = []
    for part in path:
        key = part
        if isinstance(value, dict) and isinstance(part, int):
            key = next(name for name in value if re.fullmatch(rf"\+?0*{part}", name))
        found.append(key)
        value = value[key]
    return found


def _reach(value: Any, path: list[str | int]) -> Any:
    for part in path:
        value = value[part]
    return value


_WEAK = ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid | ValidationErrorKind.OneOfMultipleValid


def _relevance(error: ValidationError) -> tuple[int, int]:
    if isinstance(error.kind, _WEAK):
        return len(error.instance_path), 2
    return len(error.instance_path), 1 if isinstance(error.kind, ValidationErrorKind.AdditionalProperties) else 0


def _shown(value: Any) -> str:
    """A value for a message: whole, but not endless."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 1000 else text[:1000] + "..."


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 1000 else text[:1000] + "..."


def _describe(error: ValidationError, value: Any, schema: dict[str, Any]) -> str:
    match error.kind:
        case ValidationErrorKind.Type():
            types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            return f"{_quoted(value)} is not of type {', '.join(repr(name) for name in types)}"
        case ValidationErrorKind.Required(property=name):
            return f"{str(name).strip(chr(34))!r} is a required property"
        case ValidationErrorKind.AdditionalProperties(unexpected=names) if "patternProperties" in schema:
            verb = "does" if len(names) == 1 else "do"
            shown = ", ".join(repr(name) for name in sorted(names))
            patterns = ", ".join(repr(pattern) for pattern in sorted(schema["patternProperties"]))
            return f"{shown} {verb} not match any of the regexes: {patterns}"
        case ValidationErrorKind.AdditionalProperties(unexpected=names):
            verb = "was" if len(names) == 1 else "were"
            shown = ", ".join(repr(name) for name in sorted(names))
            return f"Additional properties are not allowed ({shown} {verb} unexpected)"
        case ValidationErrorKind.Enum(options=options):
            return f"{_quoted(value)} is not one of {options!r}"
        case ValidationErrorKind.Pattern(pattern=pattern):
            return f"{_quoted(value)} does not match {pattern!r}"
        case ValidationErrorKind.Format(format=name):
            return f"{_quoted(value)} is not a {name!r}"
        case ValidationErrorKind.MinLength(limit=limit):
            return f"{_quoted(value)} should be non-empty" if limit == 1 else f"{_quoted(value)} is too short"
        case ValidationErrorKind.MinItems(limit=limit):
            return f"{_quoted(value)} should be non-empty" if limit == 1 else f"{_quoted(value)} is too short"
        case ValidationErrorKind.MaxLength() | ValidationErrorKind.MaxItems():
            return f"{_quoted(value)} is too long"
        case ValidationErrorKind.Minimum(limit=limit):
            return f"{value} is less than the minimum of {limit}"
        case ValidationErrorKind.Maximum(limit=limit):
            return f"{value} is greater than the maximum of {limit}"
        case ValidationErrorKind.ExclusiveMinimum(limit=limit):
            return f"{value} is less than or equal to the minimum of {limit}"
        case ValidationErrorKind.MinProperties(limit=limit):
            wanted = "should be non-empty" if limit == 1 else "does not have enough properties"
            return f"{_quoted(value)} {wanted}"
        case ValidationErrorKind.MaxProperties():
            return f"{_quoted(value)} has too many properties"
        case ValidationErrorKind.UniqueItems():
            return f"{_quoted(value)} has non-unique elements"
        case ValidationErrorKind.AnyOf() | ValidationErrorKind.OneOfNotValid():
            return f"{_quoted(value)} is not valid under any of the given schemas"
        case ValidationErrorKind.OneOfMultipleValid():
            return f"{_quoted(value)} is valid under more than one of the given schemas"
        case ValidationErrorKind.Not(schema=refused):
            return f"{_quoted(value)} should not be valid under {refused!r}"
        case ValidationErrorKind.Custom(message=message):
            return str(message)
    return str(error.message)


def _strip(schema: dict[str, Any], value: Any) -> None:
    """Remove the properties that `schema` does not know, as deep as it says what it knows."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        if schema.get("additionalProperties") is False and "patternProperties" not in schema:
            unknown = [name for name in value if name not in known]
            if len(unknown) < len(value):
                for name in unknown:
                    del value[name]
        for name, inner in value.items():
            if name in known:
                _strip(known[name], inner)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _strip(schema["items"], item)
