"""A host with a libvirt of its own for tests, and the tiny guest."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import libvirt

from kilonova import netns
from kilonova.agent.driver import Driver, ImageSpec
from kilonova.agent.libvirt import LibvirtDriver, LibvirtOptions
from kilonova.agent.libvirt.disks import BASE
from tests.driver.contract import DEPLOYMENT, Rig, Source

NAMESPACE = netns.path_of(f"kilonova-test-{os.getpid()}")
READY_SECONDS = 240
"""A boot takes 6 s on an idle machine, and minutes on one that is very busy."""


class LibvirtRig(Rig):
    """`uri` is a libvirt that nobody else uses; `directory` is ours alone."""

    def __init__(self, uri: str, directory: Path, image: Path, network: Path | None = None) -> None:
        """`network`: the namespace that this libvirt's guests live in."""
        self.directory = directory
        self.source = Source(image)
        self.options = LibvirtOptions(
            state_path=directory / "instances", deployment_id=DEPLOYMENT, uri=uri, host_name="host-1", netns=network
        )
        self._seen: dict[str, int] = {}

    def driver(self, **changes: object) -> LibvirtDriver:
        return LibvirtDriver(dataclasses.replace(self.options, **changes))  # type: ignore[arg-type]  # names of options

    def large_image(self) -> tuple[ImageSpec, Source]:
        path = self.directory / "large.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "2G"], check=True)
        source = Source(path)
        return ImageSpec(id="large", size=path.stat().st_size, disk_format="qcow2"), source

    async def until_ready(self, driver: Driver, uuid: str) -> None:
        wanted = self._seen.get(uuid, 0) + 1
        async with asyncio.timeout(READY_SECONDS):
            while (await driver.console_output(uuid, None)).count("guest ready") < wanted:
                await asyncio.sleep(0.25)
        self._seen[uuid] = wanted

    async def until_said(self, driver: Driver, uuid: str, text: str) -> None:
        async with asyncio.timeout(READY_SECONDS):
            while text not in await driver.console_output(uuid, None):
                await asyncio.sleep(0.25)

    async def taps(self, uuid: str) -> list[str]:
        links = json.loads(await self._ip("-j", "link", "show"))
        return sorted(link["ifname"] for link in links if link.get("ifalias", "").endswith(f"/{uuid}"))

    async def lose_taps(self, uuid: str) -> None:
        for tap in await self.taps(uuid):
            await self._ip("link", "delete", tap)

    async def _ip(self, *arguments: str) -> str:
        assert self.options.netns is not None
        return await _output("ip", "-n", self.options.netns.name, *arguments)

    async def run_of(self, uuid: str) -> object:
        told = (await self.virsh("domid", uuid)).strip()
        return None if told == "-" else told

    async def powers_off_itself(self, driver: Driver, uuid: str) -> None:
        """Somebody else presses the power button; the driver knows nothing of it."""
        await self.until_ready(driver, uuid)
        await self.virsh("shutdown", uuid)

    async def left(self) -> list[str]:
        domains = (await self.virsh("list", "--all", "--name")).split()
        instances = self.options.state_path
        files = [
            str(path.relative_to(instances))
            for path in instances.rglob("*")
            if BASE not in path.parts and not path.name.startswith("console.log")
        ]
        parts = [path.name for path in (instances / BASE).glob(".*") if path.suffix != ".lock"]
        return sorted(domains) + sorted(files) + sorted(parts)

    async def virsh(self, *arguments: str) -> str:
        return await _output("virsh", "-q", "-c", self.options.uri, *arguments)

    def clean(self) -> None:
        """Everything of the test goes, also what the driver would not touch."""
        connection = libvirt.open(self.options.uri)
        for domain in connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        connection.close()
        shutil.rmtree(self.options.state_path, ignore_errors=True)


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
