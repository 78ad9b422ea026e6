"""What a server needs of a host: resources, traits; as its flavor and its image say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kilonova.db.servers import Server
from kilonova.errors import Invalid
from kilonova.numa import PCPU, Asked, read_asked
from kilonova.pci import ALIAS_SPEC, PREFIX, read_request

_RESOURCES = re.compile(r"resources([a-zA-Z0-9_-]*):(\w+)")
_TRAIT = re.compile(r"trait([a-zA-Z0-9_-]*):(\w+)")
NO_ALIASES: Mapping[str, str] = {}
_OURS = {"VCPU": "vcpus", "MEMORY_MB": "memory_mb", "DISK_GB": "disk_gb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Memory in MiB, disk in GiB; `resources`: amounts of other classes."""

    vcpus: int
    memory_mb: int
    disk_gb: int
    resources: dict[str, int] = field(default_factory=dict)
    devices: dict[str, int] = field(default_factory=dict)
    """Of the resources those that are PCI devices, of which the server has certain ones."""
    numa: Asked | None = None
    """Cells, CPUs of its own and pages; such CPUs are among the resources, and not among `vcpus`."""
    required_traits: frozenset[str] = frozenset()
    forbidden_traits: frozenset[str] = frozenset()

    def claim(self) -> dict[str, Any]:
        """As it is kept with a server whose claim is not what its flavor's columns say."""
        return {
            "vcpus": self.vcpus,
            "memory_mb": self.memory_mb,
            "disk_gb": self.disk_gb,
            "resources": self.resources,
        }


def read_needs(
    vcpus: int,
    memory_mb: int,
    disk_gb: int,
    extra_specs: Mapping[str, str],
    properties: Mapping[str, str],
    aliases: Mapping[str, str] = NO_ALIASES,
) -> Needs:
    """`resources:CLASS` takes the place of what the flavor's own figure says. Raises Invalid, naming the setting.

    `aliases`: of PCI devices, see `pci.read_aliases`.

    Numbered groups (`resources1:`, `trait1:`) are all met by the one host, so they count like those without a number.
    """
    amounts = {"vcpus": vcpus, "memory_mb": memory_mb, "disk_gb": disk_gb}
    resources: dict[str, int] = {}
    devices: dict[str, int] = {}
    groups: set[str] = set()
    required: set[str] = set()
    forbidden: set[str] = set()
    for key, value in extra_specs.items():
        if found := _RESOURCES.fullmatch(key):
            group, kind = found.groups()
            groups |= {group} - {""}
            amount = _amount(key, value)
            if kind in _OURS and not group:
                amounts[_OURS[kind]] = amount
            elif kind.startswith("CUSTOM_") and not kind.startswith(PREFIX):
                resources[kind] = resources.get(kind, 0) + amount
            elif amount:
                raise Invalid(
                    f"The flavor extra spec {key}={value} cannot be honoured; accepted are "
                    f"{', '.join(_OURS)} (without a number) and CUSTOM_ classes."
                )
        elif key == ALIAS_SPEC:
            devices = read_request(value, aliases)
        elif found := _TRAIT.fullmatch(key):
            _take_trait(found.group(2), value, required, forbidden, f"flavor extra spec {key}={value}")
    for key, value in properties.items():
        if found := _TRAIT.fullmatch(key):
            _take_trait(found.group(2), value, required, forbidden, f"image property {key}={value}")
    if len(groups) > 1 and extra_specs.get("group_policy") == "isolate":
        raise Invalid("The flavor extra spec group_policy=isolate cannot be honoured; accepted here: none.")
    if both := required & forbidden:
        raise Invalid(f"The trait {min(both)} is both required and forbidden by the flavor and the image.")
    numa = read_asked(vcpus, memory_mb, extra_specs, properties)
    if numa is not None and numa.dedicated:
        if any(_RESOURCES.fullmatch(key) and key.endswith(":VCPU") for key in extra_specs):
            raise Invalid("The flavor extra specs hw:cpu_policy=dedicated and resources:VCPU exclude each other.")
        amounts["vcpus"], resources[PCPU] = 0, vcpus
    return Needs(
        **amounts,
        numa=numa,
        resources={kind: amount for kind, amount in sorted((resources | devices).items()) if amount},
        devices=devices,
        required_traits=frozenset(required),
        forbidden_traits=frozenset(forbidden),
    )


def _amount(key: str, value: str) -> int:
    if not value.isdecimal():
        raise Invalid(f"The flavor extra spec {key}={value} cannot be honoured; a whole number of at least 0 is.")
    return int(value)


def _take_trait(trait: str, value: str, required: set[str], forbidden: set[str], said: str) -> None:
    if value not in ("required", "forbidden"):
        raise Invalid(f"The {said} cannot be honoured; accepted: required, forbidden.")
    (required if value == "required" else forbidden).add(trait)


def needs_of(server: Server, aliases: Mapping[str, str] = NO_ALIASES) -> Needs:
    """Of a server as it is: its flavor and image at creation."""
    properties = (server.image or {}).get("properties") or {}
    return read_needs(
        server.vcpus, server.memory_mb, server.disk_gb, server.flavor.get("extra_specs") or {}, properties, aliases
    )


def claimed_by(server: Server) -> Needs:
    """What a server holds of its host, or would without any wishes of its flavor's."""
    if server.claim:
        kept = server.claim
        return Needs(
            vcpus=kept["vcpus"],
            memory_mb=kept["memory_mb"],
            disk_gb=kept["disk_gb"],
            resources=kept.get("resources") or {},
        )
    return Needs(vcpus=server.vcpus, memory_mb=server.memory_mb, disk_gb=server.disk_gb)
