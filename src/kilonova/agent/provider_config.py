"""What an operator says that a host has beyond what its hypervisor knows: custom resource classes and traits.

Files `*.yaml` in `[compute] provider_config_location`, of the schema that operators know (version 1.0).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from kilonova.agent.driver import Inventory, Resource
from kilonova.errors import Invalid

_CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]+")
_THIS = "$COMPUTE_NODE"
_KNOWN = {"total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio"}


class _Resources(msgspec.Struct):
    additional: list[dict[str, dict[str, Any]]] | None = None


class _Traits(msgspec.Struct):
    additional: list[Any] | None = None


class _Provider(msgspec.Struct):
    identification: dict[str, Any] | None = None
    inventories: _Resources | None = None
    traits: _Traits | None = None


class _Amount(msgspec.Struct):
    total: Annotated[int, msgspec.Meta(ge=1)]
    reserved: Annotated[int, msgspec.Meta(ge=0)] = 0
    allocation_ratio: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Additions(msgspec.Struct, frozen=True, kw_only=True):
    resources: dict[str, Resource] = {}
    traits: tuple[str, ...] = ()

    def to(self, inventory: Inventory) -> Inventory:
        if not self.resources and not self.traits:
            return inventory
        return msgspec.structs.replace(
            inventory,
            resources={**inventory.resources, **self.resources},
            traits=tuple(sorted({*inventory.traits, *self.traits})),
        )


NOTHING_MORE = Additions()


def read_provider_config(directory: Path, node: str) -> Additions:
    """Of the node of that name; nothing when the directory is not there. Raises Invalid, naming file and place."""
    resources: dict[str, Resource] = {}
    traits: set[str] = set()
    for path in sorted(directory.glob("*.yaml")) if directory.is_dir() else ():
        for provider in _providers(path):
            who = provider.identification or {}
            if not ({_THIS, node} & {str(who.get("name")), str(who.get("uuid"))}):
                continue
            for entry in (provider.inventories and provider.inventories.additional) or ():
                for kind, amount in entry.items():
                    _check_custom(path, "resource class", kind)
                    if kind in resources:
                        raise Invalid(f"{path}: {kind} is said twice for this host.")
                    resources[kind] = _resource(path, kind, amount)
            for trait in (provider.traits and provider.traits.additional) or ():
                _check_custom(path, "trait", trait)
                traits.add(trait)
    return Additions(resources=resources, traits=tuple(sorted(traits)))


def _providers(path: Path) -> list[_Provider]:
    # Imported where it is used: hosts without such files need not carry it.
    import yaml  # type: ignore[import-untyped]

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error
    meta = document.get("meta") if isinstance(document, dict) else None
    version = str(meta.get("schema_version") if isinstance(meta, dict) else None)
    if not version.startswith("1."):
        raise Invalid(f"{path}: meta: schema_version is {version}; 1.0 is accepted.")
    try:
        return msgspec.convert(document.get("providers") or [], list[_Provider])
    except msgspec.ValidationError as error:
        raise Invalid(f"{path}: providers: {error}") from error


def _check_custom(path: Path, what: str, name: object) -> None:
    if not isinstance(name, str) or not _CUSTOM.fullmatch(name):
        raise Invalid(f"{path}: {what} {name}: names like CUSTOM_X are accepted.")


def _resource(path: Path, kind: str, amount: dict[str, Any]) -> Resource:
    if "total" not in amount:
        raise Invalid(f"{path}: {kind}: total, a whole number of at least 1, is needed.")
    unknown = sorted(str(name) for name in amount.keys() - _KNOWN)
    if unknown:
        raise Invalid(f"{path}: {kind}: {unknown[0]} is not known.")
    for name, only in (("min_unit", 1), ("step_size", 1), ("max_unit", amount["total"])):
        if amount.get(name, only) != only:
            raise Invalid(f"{path}: {kind}: {name} {amount[name]} cannot be honoured; {only} is accepted.")
    try:
        known = msgspec.convert(amount, _Amount)
    except msgspec.ValidationError as error:
        raise Invalid(f"{path}: {kind}: {error}") from error
    return Resource(total=known.total, reserved=known.reserved, allocation_ratio=known.allocation_ratio)
