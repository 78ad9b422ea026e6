"""This service in the same process, on simulated hosts, furnished as the reference is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from compat.play import Side
from kilonova.agent.sim.driver import SimOptions
from kilonova.api.app import create_app
from kilonova.pci import PciDevice
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import make_cloud
from kilonova.testing.identity import PROJECT, StaticTokens
from kilonova.testing.network import FakeNetworking

IMAGES = {
    "155d900f-4e14-4e4c-a73d-069cbf4541e6": {"architecture": "x86_64"},
    "a2459075-d96c-40d5-893e-577ff92e721c": {},
}
"""Two of the reference's simulated images, and their properties. Kernel and RAM disk are left out on both sides."""
FLAVORS = [
    ("1", "m1.tiny", 512, 1, 1, {}),
    ("2", "m1.small", 2048, 20, 1, {}),
    ("3", "m1.medium", 4096, 40, 2, {}),
    ("4", "m1.large", 8192, 80, 4, {}),
    ("5", "m1.xlarge", 16384, 160, 8, {}),
    ("6", "m1.tiny.specs", 512, 1, 1, {"hw:numa_nodes": "1"}),
]
"""Id, name, RAM (MiB), disk (GiB), VCPUs, extra specs: what the reference's fixtures come with."""


NETWORK = "3cb9bc59-5699-4588-a4b1-b87f96708bc6"
PORTS = tuple(f"ce531f90-199f-48c0-816c-13e38010b44{number}" for number in range(4, 7))
GROUP = "aec9df91-db1f-4e04-8ac6-e761d8461c53"
PUBLIC = "7d5a0fb0-4c8e-4a57-8d4d-0b6ad9a5f001"
"""The reference's simulated Networking has these too."""
DEVICE = PciDevice(address="0000:81:00.0", vendor_id="8086", product_id="10fb")
"""Of each host, here and there."""


async def _networking() -> FakeNetworking:
    network = FakeNetworking()
    rules: list[dict[str, Any]] = [
        {
            "id": f"{number:08d}-1a17-4ff4-ae77-ab348bfe13a7", "direction": "ingress", "ethertype": ethertype,
            "protocol": None, "remote_group_id": GROUP, "remote_ip_prefix": None, "security_group_id": GROUP,
        }
        for number, ethertype in enumerate(("IPv4", "IPv6"))
    ]  # fmt: skip
    network.collections["security-groups"][GROUP] = {
        "id": GROUP, "name": "default", "description": "Default security group", "project_id": PROJECT,
        "tenant_id": PROJECT, "security_group_rules": rules,
    }  # fmt: skip
    network.add_network("private", project_id=PROJECT, cidrs=("192.168.1.0/24",), id=NETWORK)
    network.add_network("public", project_id="", cidrs=("203.0.113.0/24",), external=True, id=PUBLIC)
    own = {"network_id": NETWORK, "project_id": PROJECT}
    await network.create("ports", [own | {"id": port} for port in PORTS])
    return network


@contextlib.asynccontextmanager
async def ours(settings: Mapping[str, int] | None = None) -> AsyncIterator[Side]:
    """`settings`: by the names that options have."""
    with tempfile.TemporaryDirectory() as directory:
        options = SimOptions(vcpus=2, memory_mb=8192, local_gb=1028, pci_devices=(DEVICE,))
        network = await _networking()
        aliases = {"nic": DEVICE.resource_class}
        chosen = ComputeSettings(pci_aliases=aliases, **(settings or {}))  # type: ignore[arg-type]  # numbers, all of them
        async with make_cloud(
            Path(directory), hosts=2, options=options, synchronous="OFF", network=network, settings=chosen
        ) as cloud:
            for image, properties in IMAGES.items():
                cloud.images.add(image, name="fakeimage123456", size=25165824, properties=properties)
            transport = httpx.ASGITransport(app=create_app(cloud.rt, StaticTokens()))
            async with httpx.AsyncClient(transport=transport, timeout=60.0) as http:
                first, second = IMAGES
                side = Side(
                    name="ours",
                    http=http,
                    base="http://compute.test",
                    project=PROJECT,
                    hosts=tuple(cloud.hosts),
                    image=first,
                    other_image=second,
                    network=NETWORK,
                    ports=PORTS,
                    group=GROUP,
                )
                await _furnish(side)
                yield side


async def _furnish(side: Side) -> None:
    headers = {"X-Auth-Token": "admin"}
    for flavor, name, ram, disk, vcpus, specs in FLAVORS:
        body = {"id": flavor, "name": name, "ram": ram, "disk": disk, "vcpus": vcpus}
        await side.http.post(f"{side.base}/v2.1/flavors", json={"flavor": body}, headers=headers)
        if specs:
            await side.http.post(
                f"{side.base}/v2.1/flavors/{flavor}/os-extra_specs", json={"extra_specs": specs}, headers=headers
            )
