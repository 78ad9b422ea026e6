"""Filters on what a host is: capabilities, and the guests that it can run."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator

import msgspec
import numpy as np

from kilonova.numa import Asked, Placed, fit, read_cells
from kilonova.scheduler import attributes
from kilonova.scheduler.filters.base import Filter
from kilonova.scheduler.filters.match import matches
from kilonova.scheduler.node import Node
from kilonova.scheduler.picture import Bools, Picture
from kilonova.scheduler.request import PlacementRequest

CAPABILITIES = "capabilities"


def _capabilities(request: PlacementRequest) -> Iterator[tuple[str, list[str], str]]:
    """(key, path, wanted): scoped keys, and those without a scope that name an attribute of hosts."""
    for key, wanted in request.extra_specs.items():
        path = key.split(":")
        if path[0] == CAPABILITIES and len(path) > 1:
            yield key, path[1:], wanted
        elif len(path) == 1 and attributes.known(key):
            yield key, path, wanted


def _says(value: object, wanted: str) -> bool:
    return value is not None and matches(str(value), wanted)


class ComputeCapabilitiesFilter(Filter):
    name = "ComputeCapabilitiesFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        mask: Bools | None = None
        for _, path, wanted in _capabilities(request):
            column = attributes.column(picture, path)
            if column is None:
                return np.zeros(len(picture), dtype=np.bool_)
            mine = column.where(lambda value, wanted=wanted: _says(value, wanted))  # type: ignore[misc]
            mask = mine if mask is None else mask & mine
        return mask

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        for key, path, wanted in _capabilities(request):
            column = attributes.column(picture, path)
            value = None if column is None else column.of(row)
            if not _says(value, wanted):
                return f"has {':'.join(path)} = {value}, the flavor asks {key} {wanted!r}"
        return "has what the flavor asks"


_ASKED = (
    ("hw_architecture", "architecture"),
    ("img_hv_type", "hypervisor_type"),
    ("hw_vm_mode", "vm_mode"),
)
"""Properties that a guest's kind is told by: today's name and the old one."""
_ALIASES = {"amd64": "x86_64", "i386": "i686", "xen": "xen", "exe": "exe", "pv": "xen"}
_VERSION = re.compile(r"\s*(<=|>=|!=|==|<|>|=)?\s*([0-9][0-9.]*)\s*")


class ImagePropertiesFilter(Filter):
    name = "ImagePropertiesFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        asked = self._asked(request)
        version = _version(request)
        if not any(asked) and version is None:
            return None
        column = picture.column(
            "guests",
            lambda node: node,
            lambda node: (node.supported, node.hypervisor_version),
        )
        return column.where(lambda node: _can_run(node, asked, version))

    def _asked(self, request: PlacementRequest) -> tuple[str | None, ...]:
        properties = request.image_properties
        found = []
        for new, old in _ASKED:
            value = properties.get(new) or properties.get(old)
            if value is None and new == "hw_architecture" and properties:
                value = self.options.image_properties_default_architecture
            found.append(_ALIASES.get(value.lower(), value.lower()) if value else None)
        return tuple(found)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        wanted = ", ".join(value for value in (*self._asked(request), _version(request)) if value)
        return f"cannot run guests of the image's kind ({wanted})"


def _version(request: PlacementRequest) -> str | None:
    properties = request.image_properties
    return properties.get("img_hv_requested_version") or properties.get("hypervisor_version_requires")


def _can_run(node: Node, asked: tuple[str | None, ...], version: str | None) -> bool:
    if any(asked) and not any(
        all(value in (None, offered) for value, offered in zip(asked, kind, strict=True)) for kind in node.supported
    ):
        return False
    return version is None or version_satisfies(node.hypervisor_version, version)


def version_satisfies(version: int, wanted: str) -> bool:
    """`version` as 1_000_000 * major + 1_000 * minor + release, `wanted` as '>=2.10, !=6.1'; what is no version: no."""
    have = (version // 1_000_000, version // 1_000 % 1_000, version % 1_000)
    for part in wanted.split(","):
        found = _VERSION.fullmatch(part)
        if found is None:
            return False
        numbers = [int(number) for number in found[2].strip(".").split(".")][:3]
        asked = (*numbers, 0, 0)[:3]
        sign = found[1] or "=="
        verdict = {
            "<": have < asked, "<=": have <= asked, ">": have > asked, ">=": have >= asked, "!=": have != asked,
        }.get(sign, have == asked)  # fmt: skip
        if not verdict:
            return False
    return True


class NUMATopologyFilter(Filter):
    """Whether a host's cells could ever hold those of the server; what others have of them the claim knows."""

    name = "NUMATopologyFilter"
    even_forced = True

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        asked = request.numa
        if asked is None:
            return None
        column = picture.column("numa", lambda node: node, _cells_key)
        return column.where(lambda node: not isinstance(_fit(node, asked), str))

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        found = _fit(picture.nodes[row], request.numa) if request.numa is not None else ()
        return found if isinstance(found, str) else "has what the server asks for"


def _cells_key(node: Node) -> Hashable:
    return msgspec.json.encode(node.numa_cells), node.vcpus_ratio, node.memory_ratio


def _fit(node: Node, asked: Asked) -> tuple[Placed, ...] | str:
    cells = read_cells(node.numa_cells)
    return fit(asked, cells, (), cpu_ratio=node.vcpus_ratio, memory_ratio=node.memory_ratio)
