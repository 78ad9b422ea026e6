"""From method and path to an operation: a tree of path segments, no search through patterns."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kilonova.api.fields import NO_QUERY, QuerySchema, Schema
from kilonova.api.requests import Request
from kilonova.api.versions import LEGACY, MAX, Version, parse

Handler = Callable[[Request], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a request runs. `since` and `until` are microversions, both included; None is without bound.

    `status` is of success: one number, or a number from a version on, `{"2.1": 200, "2.2": 201}`.
    `policy` is checked on what is the caller's own, after query and body were found valid; a handler
    that must look at the resource first leaves it None and authorizes itself.
    """

    handler: Handler
    operation: str
    since: str | None = None
    until: str | None = None
    body: Schema | None = None
    query: QuerySchema | None = None
    status: int | Mapping[str, int] = 200
    policy: str | None = None
    first: Version = field(init=False)
    last: Version = field(init=False)
    _statuses: dict[Version, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", parse(self.since) if self.since and self.since != "2.1" else LEGACY)
        object.__setattr__(self, "last", parse(self.until) if self.until else MAX)
        steps = {"2.0": self.status} if isinstance(self.status, int) else {"2.0": 200, **self.status}
        object.__setattr__(self, "_statuses", {parse(since): status for since, status in sorted(steps.items())})

    @property
    def template(self) -> str:
        """Names the operation among those of its method, for metrics and traces."""
        return ""

    def status_at(self, version: Version) -> int:
        if isinstance(self.status, int):
            return self.status
        return max((since, status) for since, status in self._statuses.items() if since <= version)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Operation):
    method: str
    path: str

    @property
    def template(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Operation):
    """A POST to `path` whose body has the one key `key`."""

    path: str
    key: str

    @property
    def template(self) -> str:
        return f"{self.path}#{self.key}"


def route(method: str, path: str, handler: Handler, operation: str, **options: Any) -> Route:
    """`GET` takes no parameters unless a query schema says so (from 2.102 they are refused)."""
    if method == "GET":
        options.setdefault("query", NO_QUERY)
    return Route(method=method, path=path, handler=handler, operation=operation, **options)


def action(path: str, key: str, handler: Handler, operation: str, **options: Any) -> Action:
    return Action(path=path, key=key, handler=handler, operation=operation, **options)


class Endpoint:
    """What stands at one path and method: operations by version, or actions by key and version."""

    __slots__ = ("actions", "operations")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.actions: dict[str, list[Operation]] = {}


def at_version(operations: Iterable[Operation], version: Version) -> Operation | None:
    for operation in operations:
        if operation.first <= version <= operation.last:
            return operation
    return None


class _Node:
    __slots__ = ("children", "endpoints", "parameter")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.endpoints: dict[str, tuple[Endpoint, tuple[str, ...]]] = {}


_PROJECT = re.compile(r"[0-9a-f-]+")


class Router:
    """Paths are those behind `/v2.1`; a project id may stand in front of any."""

    def __init__(self, operations: Iterable[Route | Action]) -> None:
        self._root = _Node()
        for operation in operations:
            self._add(operation)

    def _add(self, operation: Route | Action) -> None:
        method = operation.method if isinstance(operation, Route) else "POST"
        node = self._root
        names = []
        for segment in _segments(operation.path):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.children.setdefault(segment, _Node())
        endpoint, _ = node.endpoints.setdefault(method, (Endpoint(), tuple(names)))
        same = endpoint.operations
        if isinstance(operation, Action):
            same = endpoint.actions.setdefault(operation.key, [])
        for other in same:
            if other.first <= operation.last and operation.first <= other.last:
                raise ValueError(f"{operation.operation} and {other.operation} stand at the same place")
        same.append(operation)

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str], str | None] | None:
        """The endpoint, the path's parameters and the project id in front of it, if there is one."""
        segments = _segments(path)
        found = self._walk(method, segments)
        if found is not None:
            return found[0], found[1], None
        if len(segments) > 1 and _PROJECT.fullmatch(segments[0]):
            # The project's own path ends in a slash.
            found = self._walk(method, segments[1:] if segments[1:] != [""] else [])
            if found is not None:
                return found[0], found[1], segments[0]
        return None

    def _walk(self, method: str, segments: list[str]) -> tuple[Endpoint, dict[str, str]] | None:
        found = _descend(self._root, method, segments, 0, ())
        if found is None:
            return None
        (endpoint, names), values = found
        return endpoint, dict(zip(names, values, strict=True))


def _descend(
    node: _Node, method: str, segments: list[str], index: int, values: tuple[str, ...]
) -> tuple[tuple[Endpoint, tuple[str, ...]], tuple[str, ...]] | None:
    """A word of a path means itself where it can, else it is a parameter."""
    if index == len(segments):
        found = node.endpoints.get(method)
        return None if found is None else (found, values)
    segment = segments[index]
    child = node.children.get(segment)
    if child is not None:
        result = _descend(child, method, segments, index + 1, values)
        if result is not None:
            return result
    if node.parameter is None or not segment:
        return None
    return _descend(node.parameter, method, segments, index + 1, (*values, segment))


def _segments(path: str) -> list[str]:
    """`/servers/detail` as `["servers", "detail"]`; doubled slashes in front count once, one at the end counts."""
    stripped = path.lstrip("/")
    return stripped.split("/") if stripped else []
