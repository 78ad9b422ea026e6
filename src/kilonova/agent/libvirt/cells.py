"""NUMA cells: the host's as libvirt's capabilities tell them, and guests' as libvirt wants them described."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from kilonova.agent.driver import ServerSpec
from kilonova.numa import SMALL_KIB, Cell, read_cpus, write_cpus

_KIB = {"KiB": 1, "MiB": 1024, "GiB": 1024**2}


def cells(capabilities: str, reserved: Mapping[tuple[int, int], int], memory_mb: int, cpus: int) -> tuple[Cell, ...]:
    """All of a cell's CPUs are in `cpus`. `reserved`: pages by (cell, KiB) that servers must not have.

    A machine of which libvirt tells no cells is one of `memory_mb` and `cpus`.
    """
    root = ET.fromstring(capabilities)
    found = [_cell(element, reserved) for element in root.findall("./host/topology/cells/cell")]
    return tuple(found) or (Cell(id=0, memory_mb=memory_mb, cpus=tuple(range(cpus))),)


def _cell(element: ET.Element, reserved: Mapping[tuple[int, int], int]) -> Cell:
    number = int(element.get("id", "0"))
    pages = []
    for one in element.findall("pages"):
        kib = int(one.get("size", "0")) * _KIB[one.get("unit", "KiB")]
        count = int(one.text or 0) - reserved.get((number, kib), 0)
        if kib != SMALL_KIB and count > 0:
            pages.append((kib, count))
    cpus = element.findall("./cpus/cpu")
    groups = {tuple(sorted(read_cpus(cpu.get("siblings") or cpu.get("id") or ""))) for cpu in cpus}
    memory = element.find("memory")
    kib = 0 if memory is None else int(memory.text or 0) * _KIB[memory.get("unit", "KiB")]
    return Cell(
        id=number,
        memory_mb=kib // 1024,
        cpus=tuple(sorted(int(cpu.get("id") or 0) for cpu in cpus)),
        siblings=tuple(sorted(group for group in groups if len(group) > 1)),
        pages=tuple(sorted(pages)),
    )


def tuning(spec: ServerSpec, shared: str | None) -> list[ET.Element]:
    """The parts of a guest's description that put it into its host's cells, in libvirt's order.

    `shared`: the host's CPUs for guests that have none of their own; None: all of them.
    """
    parts = []
    if (backing := _backing(spec)) is not None:
        parts.append(backing)
    vcpu = ET.Element("vcpu")
    vcpu.text = str(spec.vcpus)
    parts.append(vcpu)
    if not spec.numa:
        if shared:
            vcpu.set("cpuset", shared)
        return parts
    pins = {number: pin for one in spec.numa for number, pin in one.pinning.items()}
    tune = ET.Element("cputune")
    if pins:
        for number, pin in sorted(pins.items()):
            ET.SubElement(tune, "vcpupin", vcpu=str(number), cpuset=str(pin))
        # QEMU's own threads run where others share, or beside the guest's CPUs.
        ET.SubElement(tune, "emulatorpin", cpuset=shared or write_cpus(pins.values()))
    elif shared:
        vcpu.set("cpuset", shared)
    memory = ET.Element("numatune")
    ET.SubElement(memory, "memory", mode="strict", nodeset=write_cpus(one.cell for one in spec.numa))
    for number, one in enumerate(spec.numa):
        ET.SubElement(memory, "memnode", cellid=str(number), mode="strict", nodeset=str(one.cell))
    return [*parts, *([tune] if pins else []), memory]


def guest_cells(spec: ServerSpec) -> ET.Element:
    """The cells that the guest itself sees."""
    numa = ET.Element("numa")
    for number, one in enumerate(spec.numa):
        size = str(one.memory_mb * 1024)
        ET.SubElement(numa, "cell", id=str(number), cpus=write_cpus(one.cpus), memory=size, unit="KiB")
    return numa


def _backing(spec: ServerSpec) -> ET.Element | None:
    """None where all pages are ordinary ones."""
    huge: dict[int, list[int]] = {}
    for number, one in enumerate(spec.numa):
        if one.page_kib not in (None, SMALL_KIB):
            huge.setdefault(one.page_kib or 0, []).append(number)
    if not huge:
        return None
    backing = ET.Element("memoryBacking")
    sizes = ET.SubElement(backing, "hugepages")
    for kib, of_cells in sorted(huge.items()):
        ET.SubElement(sizes, "page", size=str(kib), unit="KiB", nodeset=write_cpus(of_cells))
    return backing
