"""PCI devices: which a host gives away, how flavors ask for them, who has which, how a guest is given its own."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.agent.libvirt import pci as libvirt_pci
from kilonova.agent.sim.driver import SimOptions
from kilonova.compute import states
from kilonova.compute.servers import boot, delete, power, rebuild
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes, instance_types, node_resources, pci_devices
from kilonova.errors import Conflict, Invalid
from kilonova.pci import (
    DeviceSpec,
    PciDevice,
    chosen,
    read_aliases,
    read_device,
    read_device_specs,
    read_request,
)
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import TestCloud, make_cloud
from kilonova.workflows.steps.server import spec

NIC = '{"name": "nic", "vendor_id": "8086", "product_id": "10FB"}'
VF = '{"name": "vf", "vendor_id": "8086", "product_id": "10ed", "device_type": "type-VF"}'
ALIASES = read_aliases([NIC, VF])
DEVICES = tuple(read_device(f"0000:81:00.{number}=8086:10fb") for number in range(3))


def test_a_host_gives_away_what_its_configuration_names() -> None:
    others = [read_device("0000:03:00.0=10de:1db4"), read_device("0001:81:10.0=8086:10ed:type-VF")]

    def given(*texts: str) -> list[str]:
        return [device.address for device in chosen([*others, *DEVICES], read_device_specs(texts))]

    assert given() == []
    assert given('{"vendor_id": "8086", "product_id": "10fb"}') == ["0000:81:00.0", "0000:81:00.1", "0000:81:00.2"]
    assert given('{"vendor_id": "8086"}')[-1] == "0001:81:10.0"
    assert given('{"address": "0000:81:00.[12]"}'.replace("[12]", "*")) == [device.address for device in DEVICES]
    assert given('[{"address": "0000:03:00.0"}, {"address": "0000:81:00.1"}]') == ["0000:03:00.0", "0000:81:00.1"]
    for wrong in (
        "{",
        '"8086"',
        '{"vendor_id": "x"}',
        '{"devname": "eth0"}',
        '{"physical_network": "a"}',
        '{"address": "x"}',
    ):
        with pytest.raises(Invalid, match="device_spec"):
            read_device_specs([wrong])


def test_flavors_ask_by_alias() -> None:
    assert ALIASES == {"nic": "CUSTOM_PCI_8086_10FB", "vf": "CUSTOM_PCI_8086_10ED_VF"}
    assert read_request("nic:2, vf:1,nic:1", ALIASES) == {"CUSTOM_PCI_8086_10FB": 3, "CUSTOM_PCI_8086_10ED_VF": 1}
    for wrong in ("nic", "nic:0", "nic:x", "other:1", ""):
        with pytest.raises(Invalid, match="pci_passthrough:alias"):
            read_request(wrong, ALIASES)
    for wrong in (
        "{",
        '{"name": "a"}',
        NIC.replace("}", ', "numa_policy": "required"}'),
        NIC.replace("}", ', "x": 1}'),
    ):
        with pytest.raises(Invalid, match="alias"):
            read_aliases([wrong])
    with pytest.raises(Invalid, match="something else"):
        read_aliases([NIC, NIC.replace("10FB", "10FC")])


def test_devices_are_read_from_libvirt_and_given_to_a_guest() -> None:
    xml = """<device><name>pci_0000_81_00_1</name><capability type='pci'><class>0x020000</class><domain>0</domain>
    <bus>129</bus><slot>0</slot><function>1</function><product id='0x10fb'>82599ES</product>
    <vendor id='0x8086'>Intel</vendor>{}</capability></device>"""
    plain = PciDevice(address="0000:81:00.1", vendor_id="8086", product_id="10fb")
    assert libvirt_pci.read(xml.format("")) == plain
    for inner, kind in (("virt_functions", "type-PF"), ("phys_function", "type-VF")):
        found = libvirt_pci.read(xml.format(f"<capability type='{inner}'/>"))
        assert found is not None
        assert found.type == kind
    assert libvirt_pci.read("<device><capability type='system'/></device>") is None
    element = libvirt_pci.hostdev("0000:81:00.1")
    assert ET.tostring(element, encoding="unicode") == (
        '<hostdev mode="subsystem" type="pci" managed="yes"><source>'
        '<address domain="0x0000" bus="0x81" slot="0x00" function="0x1" /></source></hostdev>'
    )


# -- on a cloud of simulated hosts
CTX = RequestContext(user_id="u", project_id="p", roles=frozenset(), request_id="req-1", is_admin=True)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[TestCloud]:
    options = SimOptions(pci_devices=chosen(DEVICES, [DeviceSpec(vendor_id="8086")]))
    settings = ComputeSettings(pci_aliases=ALIASES)
    async with make_cloud(tmp_path, synchronous="OFF", options=options, settings=settings) as made:
        made.images.add("image-1", size=64)
        now = made.rt.world.now()
        flavors = {"one": "nic:1", "two": "nic:2", "odd": "vf:1", "wrong": "other:1", "none": None}
        for name, alias in flavors.items():
            row = {
                "flavorid": name, "name": name, "vcpus": 1, "memory_mb": 64, "root_gb": 1, "created_at": now,
                "extra_specs": {"pci_passthrough:alias": alias} if alias else {},
            }  # fmt: skip
            await made.rt.db.write(lambda tx, row=row: tx.execute(sa.insert(instance_types).values(row)))
        yield made


async def rest(cloud: TestCloud, uuid: str) -> Server | None:
    for _ in range(2000):
        server = await cloud.rt.db.read(lambda tx: servers.get(tx, uuid))
        if server is None or server.operation_id is None:
            return server
        await asyncio.sleep(0.01)
    raise AssertionError(f"{uuid} does not come to rest")


async def boot_one(cloud: TestCloud, flavor: str) -> Server:
    request = boot.BootRequest(name="vm", image_ref="image-1", flavor_ref=flavor, networks="none")
    server = await rest(cloud, (await boot.create(cloud.rt, CTX, request)).uuids[0])
    assert server is not None
    return server


async def rows(cloud: TestCloud) -> dict[str, Any]:
    c = pci_devices.c
    found = await cloud.rt.db.read(lambda tx: tx.execute(sa.select(c.address, c.server_uuid).order_by(c.address)))
    return {row.address: row.server_uuid for row in found}


async def used(cloud: TestCloud) -> int:
    c = node_resources.c
    query = sa.select(c.used).where(c.resource_class == "CUSTOM_PCI_8086_10FB")
    return int((await cloud.rt.db.read(lambda tx: tx.execute(query))).scalar_one())


async def test_a_server_has_its_devices_until_it_goes(cloud: TestCloud) -> None:
    two = await boot_one(cloud, "two")
    mine = spec(two, cloud.rt.settings).pci_devices
    assert mine == ("0000:81:00.0", "0000:81:00.1")
    assert await rows(cloud) == {"0000:81:00.0": two.uuid, "0000:81:00.1": two.uuid, "0000:81:00.2": None}
    full = await boot_one(cloud, "two")
    assert full.vm_state == states.ERROR
    assert full.fault is not None
    assert "CUSTOM_PCI_8086_10FB" in full.fault["message"]
    one = await boot_one(cloud, "one")
    assert spec(one, cloud.rt.settings).pci_devices == ("0000:81:00.2",)
    assert await used(cloud) == 3
    plain = await boot_one(cloud, "none")
    assert plain.vm_state == states.ACTIVE
    with pytest.raises(Conflict, match="PCI devices"):
        await power.suspend(cloud.rt, CTX, two)

    wanted = rebuild.RebuildRequest(image_ref="image-1", admin_password="x", changes={})
    await rebuild.rebuild(cloud.rt, CTX, two, wanted)
    rebuilt = await rest(cloud, two.uuid)
    assert rebuilt is not None
    assert spec(rebuilt, cloud.rt.settings).pci_devices == mine
    await delete.delete(cloud.rt, CTX, two)
    assert await rest(cloud, two.uuid) is None
    assert await rows(cloud) == {"0000:81:00.0": None, "0000:81:00.1": None, "0000:81:00.2": one.uuid}
    assert await used(cloud) == 1


async def test_what_no_host_has_and_what_nobody_defined(cloud: TestCloud) -> None:
    odd = await boot_one(cloud, "odd")
    assert odd.vm_state == states.ERROR
    with pytest.raises(Invalid, match="other is not defined"):
        await boot_one(cloud, "wrong")
    assert set((await rows(cloud)).values()) == {None}


async def test_a_device_that_is_gone_is_given_to_nobody_else(cloud: TestCloud) -> None:
    two = await boot_one(cloud, "two")
    host = cloud.hosts["host-1"]
    host.driver.options = SimOptions(pci_devices=DEVICES[1:2])
    await cloud.conductor.hosts.on_report(await host.agent.reporter.host_report())
    assert await rows(cloud) == {"0000:81:00.0": two.uuid, "0000:81:00.1": two.uuid}
    assert (await boot_one(cloud, "one")).vm_state == states.ERROR
    await delete.delete(cloud.rt, CTX, two)
    assert await rest(cloud, two.uuid) is None
    one = await boot_one(cloud, "one")
    assert spec(one, cloud.rt.settings).pci_devices == ("0000:81:00.1",)
    await cloud.conductor.hosts.on_report(await host.agent.reporter.host_report())
    assert await rows(cloud) == {"0000:81:00.1": one.uuid}
    nodes = await cloud.rt.db.read(lambda tx: tx.execute(sa.select(compute_nodes.c.running_vms)))
    assert nodes.scalar_one() == 1
