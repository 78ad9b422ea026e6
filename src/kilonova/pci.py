"""PCI devices that hosts give to guests, and the names by which flavors ask for them.

A kind of device (vendor, product, type) is a resource class, so that it is counted and claimed as any other; which
device of the kind a server has is a row of its own.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kilonova.errors import Invalid

PREFIX = "CUSTOM_PCI_"
TYPES = ("type-PCI", "type-PF", "type-VF")
ALIAS_SPEC = "pci_passthrough:alias"
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ID = re.compile(r"[0-9a-f]{4}")


class PciDevice(msgspec.Struct, frozen=True, kw_only=True):
    """`address` as `0000:81:00.1`, the ids as four hexadecimal digits; `type`: one of TYPES."""

    address: str
    vendor_id: str
    product_id: str
    type: str = "type-PCI"

    @property
    def resource_class(self) -> str:
        return resource_class(self.vendor_id, self.product_id, self.type)


def resource_class(vendor_id: str, product_id: str, kind: str) -> str:
    suffix = "" if kind == "type-PCI" else f"_{kind.removeprefix('type-')}"
    return f"{PREFIX}{vendor_id}_{product_id}{suffix}".upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """Devices that a host gives away; `address` is a pattern with `*`."""

    vendor_id: str = "*"
    product_id: str = "*"
    address: str = "*"

    def matches(self, device: PciDevice) -> bool:
        return (
            self.vendor_id in ("*", device.vendor_id)
            and self.product_id in ("*", device.product_id)
            and fnmatch.fnmatchcase(device.address, self.address)
        )


def chosen(devices: Iterable[PciDevice], specs: Sequence[DeviceSpec]) -> tuple[PciDevice, ...]:
    """Those that the host gives away, in the order of their addresses."""
    found = [device for device in devices if any(spec.matches(device) for spec in specs)]
    return tuple(sorted(found, key=lambda device: device.address))


def read_device_specs(texts: Sequence[str]) -> tuple[DeviceSpec, ...]:
    """`[pci] device_spec`: JSON objects. Raises Invalid."""
    specs = []
    for text in texts:
        for entry in _objects("device_spec", text):
            _only("device_spec", text, entry, {"vendor_id", "product_id", "address"})
            address = str(entry.get("address", "*")).lower()
            if address != "*" and not re.fullmatch(
                r"[0-9a-f*]+:[0-9a-f*]+:[0-9a-f*]+\.[0-7*]|\*?:?[0-9a-f*:.]+", address
            ):
                raise _bad("device_spec", text, "address: a pattern like 0000:81:00.* is accepted")
            specs.append(
                DeviceSpec(
                    vendor_id=_hex("device_spec", text, entry, "vendor_id"),
                    product_id=_hex("device_spec", text, entry, "product_id"),
                    address=address,
                )
            )
    return tuple(specs)


def read_aliases(texts: Sequence[str]) -> dict[str, str]:
    """`[pci] alias`: JSON objects; by name the resource class that each stands for. Raises Invalid."""
    found: dict[str, str] = {}
    for text in texts:
        for entry in _objects("alias", text):
            _only("alias", text, entry, {"name", "vendor_id", "product_id", "device_type", "numa_policy"})
            name, kind = str(entry.get("name", "")), str(entry.get("device_type", "type-PCI"))
            if not name or kind not in TYPES:
                raise _bad("alias", text, f"a name is needed, and device_type of {', '.join(TYPES)}")
            if entry.get("numa_policy", "legacy") not in ("legacy", "preferred"):
                raise _bad("alias", text, "numa_policy: accepted here: legacy, preferred")
            ids = [_hex("alias", text, entry, key) for key in ("vendor_id", "product_id")]
            if "*" in ids:
                raise _bad("alias", text, "vendor_id and product_id are needed")
            kind = resource_class(ids[0], ids[1], kind)
            if found.setdefault(name, kind) != kind:
                raise _bad("alias", text, f"'{name}' stands for something else already")
    return found


def read_request(text: str, aliases: Mapping[str, str]) -> dict[str, int]:
    """An extra spec `NAME:COUNT,...`: how many of each resource class. Raises Invalid."""
    wanted: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = part.strip().rpartition(":")
        if not name or not count.isdecimal() or int(count) < 1:
            raise Invalid(f"The flavor extra spec {ALIAS_SPEC}={text} cannot be honoured; accepted: NAME:COUNT,...")
        if name not in aliases:
            raise Invalid(f"The flavor extra spec {ALIAS_SPEC}={text}: PCI alias {name} is not defined.")
        wanted[aliases[name]] = wanted.get(aliases[name], 0) + int(count)
    return wanted


def read_device(text: str) -> PciDevice:
    """A simulated host's: `ADDRESS=VENDOR:PRODUCT`, perhaps with `:TYPE`. Raises Invalid."""
    address, _, what = text.partition("=")
    vendor, product, kind = (*what.split(":"), "type-PCI", "", "")[:3]
    sound = _ADDRESS.fullmatch(address) and _ID.fullmatch(vendor) and _ID.fullmatch(product) and kind in TYPES
    if not sound:
        raise Invalid(f"Configuration: [sim] pci_devices: '{text}': 0000:81:00.0=8086:10fb or ...:type-VF is accepted.")
    return PciDevice(address=address, vendor_id=vendor, product_id=product, type=kind)


def _objects(option: str, text: str) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise _bad(option, text, f"it is no JSON ({error})") from error
    entries = document if isinstance(document, list) else [document]
    if not all(isinstance(entry, dict) for entry in entries):
        raise _bad(option, text, "a JSON object is accepted, or a list of them")
    return entries


def _only(option: str, text: str, entry: Mapping[str, Any], known: set[str]) -> None:
    for key in sorted(entry.keys() - known):
        raise _bad(option, text, f"{key} cannot be honoured; accepted: {', '.join(sorted(known))}")


def _hex(option: str, text: str, entry: Mapping[str, Any], key: str) -> str:
    value = str(entry.get(key, "*")).lower()
    if value != "*" and not _ID.fullmatch(value):
        raise _bad(option, text, f"{key}: four hexadecimal digits are accepted")
    return value


def _bad(option: str, text: str, hint: str) -> Invalid:
    return Invalid(f"Configuration: [pci] {option} = {text}: {hint}.")
