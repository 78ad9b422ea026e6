"""The hint `query`: a condition on hosts in JSON, as `["and", [">=", "$free_ram_mb", 1024], ["=", "$host", "a"]]`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from kilonova.errors import Invalid
from kilonova.scheduler import attributes
from kilonova.scheduler.filters.base import Filter
from kilonova.scheduler.picture import Bools, Picture
from kilonova.scheduler.request import PlacementRequest

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
DEEPEST = 50
"""Levels of lists: schedulers evaluate a query by recursion."""
_SIGNS = (*_COMPARE, "in", "not", "or", "and")


def parse(text: str) -> list[Any]:
    """Raises Invalid, saying what is wrong with it."""
    try:
        query = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Invalid(f"The scheduler hint 'query' is no JSON: {error}.") from None
    except RecursionError:
        raise _too_deep() from None
    _check(query)
    assert isinstance(query, list)
    return query


def _check(query: Any, depth: int = 1) -> None:
    if depth > DEEPEST:
        raise _too_deep()
    if not isinstance(query, list) or not query or query[0] not in _SIGNS:
        raise Invalid(f"The scheduler hint 'query': a list that begins with one of {', '.join(_SIGNS)} is accepted.")
    for argument in query[1:]:
        if isinstance(argument, list):
            _check(argument, depth + 1)
        elif isinstance(argument, str) and argument.startswith("$"):
            if not attributes.known(argument[1:].split(".")[0]):
                raise Invalid(f"The scheduler hint 'query': hosts have no attribute '{argument}'.")
        elif not isinstance(argument, str | int | float | bool):
            raise Invalid("The scheduler hint 'query': strings, numbers, booleans and lists are accepted.")


def _too_deep() -> Invalid:
    return Invalid(f"The scheduler hint 'query': lists at most {DEEPEST} deep are accepted.")


class JsonFilter(Filter):
    name = "JsonFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        if request.query is None:
            return None
        return _as_mask(_evaluate(parse(request.query), picture))

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return f"is not what the hint asks: {request.query}"


def _evaluate(query: list[Any], picture: Picture) -> Bools:
    sign, size = query[0], len(picture)
    arguments = [_argument(argument, picture) for argument in query[1:]]
    if sign in ("and", "or"):
        masks = [_as_mask(argument) for argument in arguments]
        return _any(masks, size) if sign == "or" else ~_any([~mask for mask in masks], size)
    if sign == "not":
        return _any([~_as_mask(argument) for argument in arguments], size)
    if len(arguments) < 2:
        return np.zeros(size, dtype=np.bool_)
    first, rest = arguments[0], arguments[1:]
    if sign == "in":
        found = [_compare(operator.eq, first, other) for other in rest]
        return _any(found, size)
    differing = [~_compare(_COMPARE[sign], first, other) for other in rest]
    return ~_any(differing, size)


def _any(masks: list[Bools], size: int) -> Bools:
    found: Bools = np.zeros(size, dtype=np.bool_)
    for mask in masks:
        found = found | mask
    return found


def _argument(argument: Any, picture: Picture) -> Any:
    """An array with one value per host."""
    if isinstance(argument, list):
        return _evaluate(argument, picture)
    if isinstance(argument, str) and argument.startswith("$"):
        column = attributes.column(picture, argument[1:].split("."))
        if column is None:
            return np.full(len(picture), None, dtype=object)
        values = np.empty(len(column.values), dtype=object)
        values[:] = column.values
        return values[column.codes]
    return np.full(len(picture), argument, dtype=object)


def _as_mask(values: Any) -> Bools:
    mask: Bools = values if values.dtype == np.bool_ else np.array([bool(value) for value in values], dtype=np.bool_)
    return mask


def compare(how: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    """False for what cannot be compared, and for what is not known."""
    if left is None or right is None:
        return False
    try:
        return bool(how(left, right))
    except TypeError:
        return False


def _compare(how: Callable[[Any, Any], bool], left: Any, right: Any) -> Bools:
    pairs = zip(left.tolist(), right.tolist(), strict=True)
    return np.fromiter((compare(how, one, other) for one, other in pairs), dtype=np.bool_, count=len(left))
