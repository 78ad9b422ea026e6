"""This service in the same process, on simulated hosts, furnished as the reference is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from compat.play import Side
from kilonova.agent.sim.driver import SimOptions
from kilonova.api.app import create_app
from kilonova.testing.cloud import make_cloud
from kilonova.testing.identity import PROJECT, StaticTokens

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


@contextlib.asynccontextmanager
async def ours() -> AsyncIterator[Side]:
    with tempfile.TemporaryDirectory() as directory:
        options = SimOptions(vcpus=2, memory_mb=8192, local_gb=1028)
        async with make_cloud(Path(directory), hosts=2, options=options, synchronous="OFF") as cloud:
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
