"""PCI devices of this machine, as its libvirt tells of them; and that libvirt understands a guest's share."""

from __future__ import annotations

from pathlib import Path

import libvirt
import msgspec
import pytest

from kilonova.agent.libvirt import LibvirtDriver, LibvirtOptions
from kilonova.agent.libvirt.domain_xml import build
from kilonova.allinone.libvirtd import libvirt_uri
from kilonova.pci import DeviceSpec
from tests.unit.test_domain_xml import DRIVES, OPTIONS, PLATFORM, asking, wanted

SYSFS = Path("/sys/bus/pci/devices")


async def test_a_host_tells_of_the_devices_that_it_is_to_give_away(libvirt_state: Path, tmp_path: Path) -> None:
    here = {path.name: path for path in SYSFS.iterdir()} if SYSFS.is_dir() else {}
    if not here:
        pytest.skip("this machine has no PCI devices")
    first = min(here)

    async def given(*specs: DeviceSpec) -> dict[str, tuple[str, str]]:
        options = LibvirtOptions(
            state_path=tmp_path, deployment_id="d", uri=libvirt_uri(libvirt_state), pci_specs=specs
        )
        driver = LibvirtDriver(options)
        await driver.start()
        try:
            devices = (await driver.inventory()).pci_devices
        finally:
            await driver.close()
        return {device.address: (device.vendor_id, device.product_id) for device in devices}

    assert await given() == {}
    found = await given(DeviceSpec(address=first))
    ids = [(here[first] / name).read_text().strip().removeprefix("0x") for name in ("vendor", "device")]
    assert found == {first: (ids[0], ids[1])}


def test_libvirt_takes_a_guest_with_devices(libvirt_state: Path) -> None:
    handle = libvirt.open(libvirt_uri(libvirt_state))
    try:
        spec = msgspec.structs.replace(asking(), pci_devices=("0000:81:00.1",))
        xml, _ = build(
            spec, options=OPTIONS, platform=PLATFORM, wanted=wanted(spec), drives=DRIVES,
            console_log=Path("/instances/u/console.log"),
        )  # fmt: skip
        domain = handle.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        try:
            assert "<address domain='0x0000' bus='0x81' slot='0x00' function='0x1'/>" in domain.XMLDesc(0)
        finally:
            domain.undefine()
    finally:
        handle.close()
