"""Comparisons as extra specs write them: '>= 4', '<in> kvm', '<or> a <or> b', 's== x', or a plain value."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

_NUMBERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}
_TEXTS: dict[str, Callable[[Any, Any], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
}


def matches(value: str, wanted: str) -> bool:
    """Whether a host's value is what an extra spec asks. '=' means 'at least'; what is no number is less than any."""
    words = wanted.split()
    if not words:
        return value == wanted
    sign, rest = words[0], words[1:]
    if sign == "<or>":
        return value in rest[::2]
    if sign == "<in>":
        return bool(rest) and rest[0] in value
    if sign == "<all-in>":
        return bool(rest) and all(word in value for word in rest)
    if sign in _NUMBERS:
        try:
            return bool(rest) and _NUMBERS[sign](float(value), float(rest[0]))
        except ValueError:
            return False
    if sign in _TEXTS:
        return bool(rest) and _TEXTS[sign](value, rest[0])
    return value == wanted
