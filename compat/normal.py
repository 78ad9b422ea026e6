"""What of an answer two services must share: values that each makes for itself become marks such as `<time>`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from typing import Any

HEADERS = ("content-type", "location", "openstack-api-version", "vary", "x-openstack-nova-api-version")
"""Compared by value; these by being there or not:"""
PRESENT_HEADERS = ("x-compute-request-id", "x-openstack-request-id")

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_PATTERNS = [
    (re.compile(rf"req-{_UUID}"), "<request-id>"),
    (re.compile(_UUID), "<uuid>"),
    (re.compile(r"\b[0-9a-f]{56}\b"), "<host-id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z"), "<time>Z"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?"), "<time>"),
    (re.compile(r"\br-[0-9a-z]{8}\b"), "<reservation>"),
    (re.compile(r"\binstance-[0-9a-f]{8}\b"), "<instance-name>"),
    (re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n?", re.DOTALL), r"<pem \1>"),
    (re.compile(r"\b([0-9a-f]{2}:){15}[0-9a-f]{2}\b"), "<fingerprint>"),
]
LOOSE = frozenset({"adminPass", "progress", "OS-EXT-SRV-ATTR:root_device_name"})
"""Keys whose values are compared by type alone, everywhere."""


def kind(value: Any) -> Any:
    """The type of a value, and of what is in it."""
    if isinstance(value, bool):
        return "<bool>"
    if isinstance(value, int):
        return "<int>"
    if isinstance(value, float):
        return "<float>"
    if isinstance(value, str):
        return "<str>"
    if isinstance(value, dict):
        return {key: kind(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [kind(inner) for inner in value]
    return value


class Normaliser:
    """`names` are values with a meaning (ids, hosts, URLs) and the marks that stand for them; longest first."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = sorted(names.items(), key=lambda item: -len(item[0]))

    def text(self, value: str) -> str:
        for name, mark in self._names:
            if name in value:
                pattern = rf"(?<![\w-]){re.escape(name)}(?![\w-])" if name[0].isalnum() else re.escape(name)
                value = re.sub(pattern, mark, value)
        for expression, mark in _PATTERNS:
            value = expression.sub(mark, value)
        return value

    def body(self, value: Any, loose: Set[str] = frozenset(), unordered: Set[str] = frozenset(), key: str = "") -> Any:
        if key in loose or key in LOOSE:
            return kind(value)
        if isinstance(value, dict):
            return {self.text(k): self.body(inner, loose, unordered, k) for k, inner in value.items()}
        if isinstance(value, list):
            items = [self.body(inner, loose, unordered, key if not isinstance(inner, dict) else "") for inner in value]
            if key in unordered:
                items.sort(key=lambda item: json.dumps(item, sort_keys=True))
            return items
        return self.text(value) if isinstance(value, str) else value

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        found = {}
        for name in HEADERS:
            if name in headers:
                value = self.text(headers[name])
                if name == "content-type":
                    value = value.partition(";")[0].strip()
                if name == "vary":
                    value = ", ".join(sorted(part.strip() for part in value.split(",")))
                found[name] = value
        found |= {name: "<request-id>" for name in PRESENT_HEADERS if name in headers}
        return found


def fault(body: Any) -> Any:
    """An error's body without its wording, which is each service's own."""
    if isinstance(body, dict):
        return {
            name: {**inner, "message": "<text>"} if isinstance(inner, dict) and inner.get("message") else inner
            for name, inner in body.items()
        }
    return "<text>" if body else ""
