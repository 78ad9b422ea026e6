"""From a path to what a guest reads there: the trees `ec2` and `openstack`, at all their versions. Pure."""

from __future__ import annotations

import datetime as dt
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kilonova.metadata import content
from kilonova.metadata.content import EC2_VERSIONS, LATEST, OPENSTACK_VERSIONS, ServerFacts, Value

TEXT, JSON = "text/plain", "application/json"


@dataclass(frozen=True, slots=True)
class Document:
    body: bytes
    kind: str = TEXT
    fresh: bool = False
    """Has a seed in it that is to be another one each time."""


def parts(path: str) -> list[str]:
    """The path's parts, normalised, with the tree's name first; [] for `/`."""
    found = [part for part in posixpath.normpath("/" + path).split("/") if part]
    return found if not found or found[0] in ("ec2", "openstack") else ["ec2", *found]


def listing(found: list[str], today: dt.date = dt.date.max) -> Document | None:
    """What is the same for every server: the trees' versions, but for those of `openstack` whose day is yet to come."""
    if not found or found == ["ec2"]:
        return _lines([*EC2_VERSIONS, LATEST])
    if found == ["openstack"]:
        return _lines([*(each for each in OPENSTACK_VERSIONS if each <= today.isoformat()), LATEST])
    return None


def document(facts: ServerFacts, found: list[str], vendor: Vendor) -> Document | None:
    """None when there is nothing at this path. `openstack/VERSION/password` is the service's own business."""
    tree, version, *rest = found
    if tree == "ec2":
        return _ec2(facts, version, rest) if version in (*EC2_VERSIONS, LATEST) else None
    return _openstack(facts, version, rest, vendor) if version in (*OPENSTACK_VERSIONS, LATEST) else None


@dataclass(frozen=True, slots=True)
class Vendor:
    """`static`: None when the operator has not asked for it. `dynamic`: by target."""

    static: Mapping[str, Any] | None = None
    dynamic: Mapping[str, Any] | None = None


# -- openstack


def _openstack(facts: ServerFacts, version: str, rest: list[str], vendor: Vendor) -> Document | None:
    names = content.openstack_files(facts, version)
    if not rest:
        return _lines(list(names))
    if len(rest) > 1:
        return None
    (name,) = rest
    if name == "network_data.json":
        # Served at every version, and listed since Liberty only.
        return Document(_json(content.network_data(facts)))
    if name not in names:
        return None
    match name:
        case "meta_data.json":
            return Document(_json(content.meta_data(facts, version)), JSON, fresh=True)
        case "user_data":
            return Document(facts.user_data or b"")
        case "vendor_data.json":
            return Document(_json(vendor.static), JSON) if vendor.static is not None else None
        case "vendor_data2.json":
            static = {} if vendor.static is None else {"static": dict(vendor.static)}
            return Document(_json(static | dict(vendor.dynamic or {})), JSON)
    return None


# -- ec2


def _ec2(facts: ServerFacts, version: str, rest: list[str]) -> Document | None:
    if not rest:
        return _lines(["meta-data/", *(["user-data"] if facts.user_data is not None else [])])
    if rest == ["user-data"] and facts.user_data is not None:
        return Document(facts.user_data)
    if rest[0] != "meta-data":
        return None
    node: Value = content.ec2_meta_data(facts, version)
    for name in rest[1:]:
        if not isinstance(node, dict) or name not in node:
            return None
        node = node[name]
    if rest[1:] == ["public-keys"]:
        return Document(f"0={facts.key_name}".encode())
    return Document(_shown(node).encode())


def _shown(node: Value) -> str:
    if isinstance(node, dict):
        return "\n".join(name + ("/" if isinstance(node[name], dict) else "") for name in sorted(node))
    if isinstance(node, list):
        return "\n".join(str(each) for each in node)
    return str(node)


def _lines(names: list[str]) -> Document:
    return Document("\n".join(names).encode())


def _json(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value)
