"""The host's PCI devices as libvirt shows them, and a guest's share of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from kilonova.pci import PciDevice

PCI_DEVICES = 2
"""VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV"""
_ADDRESS = re.compile(r"(\w+):(\w+):(\w+)\.(\w)")


def devices(handle: Any) -> list[PciDevice]:
    found = (read(device.XMLDesc(0)) for device in handle.listAllDevices(PCI_DEVICES))
    return [device for device in found if device is not None]


def read(xml: str) -> PciDevice | None:
    """None: it has no identity, as some of a machine's own parts."""
    capability = ET.fromstring(xml).find("capability[@type='pci']")
    if capability is None:
        return None
    vendor, product = capability.find("vendor"), capability.find("product")
    if vendor is None or product is None:
        return None
    domain, bus, slot, function = (
        int(capability.findtext(part, "0")) for part in ("domain", "bus", "slot", "function")
    )
    kinds = {inner.get("type") for inner in capability.findall("capability")}
    kind = "type-VF" if "phys_function" in kinds else "type-PF" if "virt_functions" in kinds else "type-PCI"
    return PciDevice(
        address=f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}",
        vendor_id=f"{int(vendor.get('id', '0'), 16):04x}",
        product_id=f"{int(product.get('id', '0'), 16):04x}",
        type=kind,
    )


def hostdev(address: str) -> ET.Element:
    """`managed`: libvirt takes the device from its driver while the guest runs, and gives it back."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None, address
    domain, bus, slot, function = (f"0x{part}" for part in found.groups())
    element = ET.Element("hostdev", mode="subsystem", type="pci", managed="yes")
    source = ET.SubElement(element, "source")
    ET.SubElement(source, "address", domain=domain, bus=bus, slot=slot, function=function)
    return element
