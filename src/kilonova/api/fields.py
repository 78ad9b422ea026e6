"""What a field of a request or an answer is, and from which version to which.

`Object` and `Field` describe JSON Schema whose parts come and go with microversions; `Schema.at(version)`
is the validator of one version, built once for each range between two changes. `View` is the same for
answers: compiled to one function that makes the dict of a row.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kilonova.api.validation import Validator
from kilonova.api.versions import LEGACY, MAX, Version, parse

JsonSchema = Mapping[str, Any]


def _range(since: str | None, until: str | None) -> tuple[Version, Version]:
    return parse(since) if since else LEGACY, parse(until) if until else MAX


class Versioned:
    """A part of a schema that is there from `since` to `until` (both included)."""

    __slots__ = ("since", "until")

    def __init__(self, since: str | None, until: str | None) -> None:
        self.since, self.until = _range(since, until)

    def holds(self, version: Version) -> bool:
        return self.since <= version <= self.until


class Field(Versioned):
    """A property of an Object. The same name may stand several times for ranges that do not meet."""

    __slots__ = ("name", "required", "schema")

    def __init__(
        self, name: str, schema: Any, *, since: str | None = None, until: str | None = None, required: bool = False
    ) -> None:
        super().__init__(since, until)
        self.name = name
        self.schema = schema
        self.required = required


class Part(Versioned):
    """A schema that stands in a `OneOf` for some versions."""

    __slots__ = ("schema",)

    def __init__(self, schema: Any, *, since: str | None = None, until: str | None = None) -> None:
        super().__init__(since, until)
        self.schema = schema


class Object:
    """A JSON object. `open_until`: up to that version unknown properties are let pass (and stripped of queries);
    `open_until=None` refuses them from the start, `open_until="2.104"` never does.
    """

    __slots__ = ("extra", "fields", "nullable", "open_until")

    def __init__(
        self, *fields: Field, open_until: str | None = None, nullable: bool = False, extra: JsonSchema | None = None
    ) -> None:
        self.fields = fields
        self.open_until = parse(open_until) if open_until else None
        self.nullable = nullable
        self.extra = extra or {}


class Choice:
    """One schema among several, by version: the first Part that holds."""

    __slots__ = ("parts",)

    def __init__(self, *parts: Part) -> None:
        self.parts = parts


def resolve(node: Any, version: Version) -> Any:
    """The plain JSON Schema of `node` at `version`."""
    if isinstance(node, Object):
        return _resolve_object(node, version)
    if isinstance(node, Choice):
        for part in node.parts:
            if part.holds(version):
                return resolve(part.schema, version)
        raise LookupError(f"no schema at {version}")
    if isinstance(node, Mapping):
        return {key: resolve(value, version) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [
            resolve(item.schema if isinstance(item, Part) else item, version)
            for item in node
            if not isinstance(item, Part) or item.holds(version)
        ]
    return node


def _resolve_object(node: Object, version: Version) -> dict[str, Any]:
    held = [field for field in node.fields if field.holds(version)]
    names = [field.name for field in held]
    if len(names) != len(set(names)):
        raise ValueError(f"a property stands twice at {version}: {names}")
    schema: dict[str, Any] = {
        "type": ["object", "null"] if node.nullable else "object",
        "properties": {field.name: resolve(field.schema, version) for field in held},
        "additionalProperties": node.open_until is not None and version <= node.open_until,
    }
    required = [field.name for field in held if field.required]
    if required:
        schema["required"] = required
    schema.update(resolve(node.extra, version))
    return schema


def boundaries(node: Any) -> set[Version]:
    """The versions at which something in `node` changes."""
    found: set[Version] = set()

    def ranged(part: Versioned) -> None:
        found.add(part.since)
        found.add(Version(part.until.major, part.until.minor + 1))

    def walk(node: Any) -> None:
        if isinstance(node, Object):
            if node.open_until is not None:
                found.add(Version(node.open_until.major, node.open_until.minor + 1))
            walk(node.extra)
            for field in node.fields:
                ranged(field)
                walk(field.schema)
        elif isinstance(node, Choice):
            walk(node.parts)
        elif isinstance(node, Part):
            ranged(node)
            walk(node.schema)
        elif isinstance(node, Mapping):
            for value in node.values():
                walk(value)
        elif isinstance(node, list | tuple):
            for item in node:
                walk(item)

    walk(node)
    # At the legacy version every schema is laxer, so it is always a range of its own.
    return {version for version in found | {LEGACY, parse("2.1")} if version <= MAX}


T = TypeVar("T")


class ByVersion(Generic[T]):
    """Something built once for each range of versions between two changes."""

    __slots__ = ("_build", "_by_version", "starts")

    def __init__(self, starts: Iterable[Version], build: Callable[[Version], T]) -> None:
        self.starts = sorted(set(starts) | {LEGACY})
        self._build = build
        self._by_version: dict[Version, T] = {}

    def at(self, version: Version) -> T:
        found = self._by_version.get(version)
        if found is None:
            start = self.starts[bisect.bisect_right(self.starts, version) - 1]
            found = self._by_version.get(start)
            if found is None:
                found = self._by_version[start] = self._build(start)
            self._by_version[version] = found
        return found


class Schema:
    """The request body of an operation."""

    __slots__ = ("_validators", "node")

    def __init__(self, node: Any) -> None:
        self.node = node
        self._validators = ByVersion(boundaries(node), self._compile)

    def at(self, version: Version) -> Validator:
        return self._validators.at(version)

    def plain(self, version: Version) -> dict[str, Any]:
        """The JSON Schema itself, for documents."""
        schema = resolve(self.node, version)
        assert isinstance(schema, dict)
        return schema

    def _compile(self, version: Version) -> Validator:
        return Validator(self.plain(version), legacy=version == LEGACY, is_body=True)


def body(key: str, node: Any, **options: Any) -> Schema:
    """The body `{key: node}`, as most are."""
    return Schema(Object(Field(key, node, required=True, **options)))


class QuerySchema:
    """The query parameters of an operation: each a list of the values given."""

    __slots__ = ("_validators", "node")

    def __init__(self, *fields: Field, open_until: str | None = "2.101", extra: JsonSchema | None = None) -> None:
        self.node = Object(*fields, open_until=open_until, extra=extra)
        self._validators = ByVersion(boundaries(self.node), self._compile)

    def at(self, version: Version) -> Validator:
        return self._validators.at(version)

    def plain(self, version: Version) -> dict[str, Any]:
        schema = resolve(self.node, version)
        assert isinstance(schema, dict)
        return schema

    def _compile(self, version: Version) -> Validator:
        return Validator(self.plain(version), legacy=version == LEGACY, is_body=False)


NO_QUERY = QuerySchema()
"""For operations that never took parameters: from 2.102 any is refused."""

OPEN_QUERY = QuerySchema(open_until="2.104")


@dataclass(frozen=True, slots=True)
class Out:
    """A field of an answer: `source` is an attribute of the row, or a function of (row, environment)."""

    name: str
    source: str | Callable[[Any, Any], Any]
    since: str | None = None
    until: str | None = None


class View:
    """The dict of a row at each version. `view.at(version)(row, environment)` makes one.

    The environment is what the caller hands on to the functions of its fields, say the request.
    """

    __slots__ = ("_renderers", "fields")

    def __init__(self, *fields: Out) -> None:
        self.fields = fields
        parts = [Part(None, since=field.since, until=field.until) for field in fields]
        self._renderers: ByVersion[Callable[[Any, Any], dict[str, Any]]] = ByVersion(boundaries(parts), self._compile)

    def at(self, version: Version) -> Callable[[Any, Any], dict[str, Any]]:
        return self._renderers.at(version)

    def names(self, version: Version) -> list[str]:
        return [field.name for field in self._held(version)]

    def _held(self, version: Version) -> list[Out]:
        def holds(field: Out) -> bool:
            since, until = _range(field.since, field.until)
            return since <= version <= until

        return [field for field in self.fields if holds(field)]

    def _compile(self, version: Version) -> Callable[[Any, Any], dict[str, Any]]:
        # One dict display costs a third of a loop over fields, which counts in a list of a thousand.
        scope: dict[str, Any] = {}
        items = []
        for number, field in enumerate(self._held(version)):
            if isinstance(field.source, str):
                if not all(part.isidentifier() for part in field.source.split(".")):
                    raise ValueError(f"{field.source!r} is no attribute")
                items.append(f"{field.name!r}: row.{field.source}")
            else:
                scope[f"get_{number}"] = field.source
                items.append(f"{field.name!r}: get_{number}(row, env)")
        renderer: Callable[[Any, Any], dict[str, Any]] = eval(f"lambda row, env: {{{', '.join(items)}}}", scope)
        return renderer
