"""Our element in a domain's metadata: whose guest it is, what it was defined from, and its last reboot."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec

NAMESPACE = "urn:kilonova:guest:1"
PREFIX = "kilonova"
_TAG = f"{{{NAMESPACE}}}guest"

ET.register_namespace(PREFIX, NAMESPACE)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """`definition` is a hash of the domain as we wrote it; `reboot` the marker of the last reboot, empty before any."""

    deployment: str
    definition: str = ""
    reboot: str = ""

    def element(self) -> ET.Element:
        return ET.Element(_TAG, msgspec.structs.asdict(self))

    def xml(self) -> str:
        """As `virDomainSetMetadata` takes it: it adds the namespace prefix itself."""
        return ET.tostring(ET.Element("guest", msgspec.structs.asdict(self)), encoding="unicode")


def find_mark(domain: ET.Element) -> Mark | None:
    """The mark in a domain's XML; None for a guest that is none of ours."""
    found = domain.find(f"metadata/{_TAG}")
    return None if found is None else msgspec.convert(dict(found.attrib), Mark, strict=False)
