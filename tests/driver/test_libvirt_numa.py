"""NUMA on this machine's libvirt: what it tells of the host, and guests on CPUs and in cells of the host's."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kilonova.agent.driver import PowerState
from kilonova.agent.libvirt.domain_xml import build
from kilonova.allinone.libvirtd import libvirt_uri
from kilonova.numa import Placed, read_cpus
from tests.driver.contract import build as build_guest
from tests.driver.contract import remove
from tests.driver.libvirt_rig import LibvirtRig
from tests.unit.test_domain_xml import DRIVES, OPTIONS, PLATFORM, SPEC, wanted

libvirt: Any = pytest.importorskip("libvirt")


async def test_a_host_tells_of_its_cells(libvirt_state: Path, guest_image: Path, tmp_path: Path) -> None:
    here = read_cpus(Path("/sys/devices/system/cpu/online").read_text().strip())
    last = max(here)
    rig = LibvirtRig(libvirt_uri(libvirt_state), tmp_path, guest_image)
    for changes, shared, own in (
        ({}, here, frozenset()),
        ({"cpu_dedicated_set": frozenset({last})}, frozenset(), frozenset({last})),
        ({"cpu_shared_set": here - {last}, "cpu_dedicated_set": frozenset({last})}, here - {last}, frozenset({last})),
    ):
        driver = rig.driver(**changes)
        await driver.start()
        try:
            found = await driver.inventory()
        finally:
            await driver.close()
        assert {cpu for cell in found.cells for cpu in cell.cpus} == shared
        assert {cpu for cell in found.cells for cpu in cell.dedicated} == own
        assert found.vcpus == len(shared)
        assert (found.resources["PCPU"].total if own else 0) == len(own)
        assert sum(cell.memory_mb for cell in found.cells) > 0


async def test_a_guest_runs_on_the_cpu_that_is_its_own(libvirt_state: Path, guest_image: Path, tmp_path: Path) -> None:
    rig = LibvirtRig(libvirt_uri(libvirt_state), tmp_path, guest_image)
    pin = max(os.sched_getaffinity(0))
    spec = rig.spec(numa=(Placed(cell=0, cpus=(0,), memory_mb=128, pins=(pin,)),))
    driver = rig.driver()
    await driver.start()
    try:
        await build_guest(rig, driver, spec)
        assert {guest.power_state for guest in await driver.guests()} == {PowerState.RUNNING}
        allowed = [
            re.search(r"Cpus_allowed_list:\s*(\S+)", (task / "status").read_text())
            for task in (_process_of(spec.uuid) / "task").iterdir()
            if "CPU 0" in (task / "comm").read_text()
        ]
        assert [found and found[1] for found in allowed] == [str(pin)]
    finally:
        await remove(driver, spec.uuid)
        await driver.close()


def _process_of(uuid: str) -> Path:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"qemu-system" in command and uuid.encode() in command:
                return process
    raise AssertionError(f"no process has {uuid}")


def test_libvirt_takes_a_guest_with_cells_and_pages(libvirt_state: Path) -> None:
    handle = libvirt.open(libvirt_uri(libvirt_state))
    try:
        placed = (Placed(cell=0, cpus=(0, 1), memory_mb=128, pins=(0, 1), page_kib=2048),)
        xml, _ = build(
            msgspec.structs.replace(SPEC, numa=placed), options=OPTIONS, platform=PLATFORM, wanted=wanted(SPEC),
            drives=DRIVES, console_log=Path("/instances/u/console.log"),
        )  # fmt: skip
        domain = handle.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        try:
            shown = domain.XMLDesc(0)
            for part in ("<vcpupin vcpu='1' cpuset='1'/>", "<page size='2048' unit='KiB' nodeset='0'/>", "<memnode"):
                assert part in shown
        finally:
            domain.undefine()
    finally:
        handle.close()
