"""The contract on simulated guests."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kilonova.agent.driver import Driver, ImageSpec, PowerState
from kilonova.agent.sim import SimDriver, SimOptions, SimState
from kilonova.world import World
from tests.driver.contract import DriverContract, Rig, Source, driver

__all__ = ["driver"]


class SimRig(Rig):
    def __init__(self, directory: Path, state: SimState) -> None:
        self.directory = directory
        self.state = state
        self.ready: dict[str, int] = {}
        path = directory / "image"
        path.write_bytes(bytes(range(256)) * 20_000)
        self.source = Source(path)

    def driver(self) -> Driver:
        options = SimOptions(download_images=True)
        return SimDriver(options, World(), host="h1", state=self.state)

    def large_image(self) -> tuple[ImageSpec, Source]:
        path = self.directory / "large"
        shutil.copy(self.source.path, path)
        image = self.image(id="0a51c15c-6f3b-4f4c-8c43-6c1a4c7f0002", min_disk_gb=2)
        return image, Source(path)

    async def until_ready(self, driver: Driver, uuid: str) -> None:
        said = (await driver.console_output(uuid, None)).count("guest ready")
        assert said > self.ready.get(uuid, 0)
        self.ready[uuid] = said

    async def until_said(self, driver: Driver, uuid: str, text: str) -> None:
        assert text in await driver.console_output(uuid, None)

    async def taps(self, uuid: str) -> list[str]:
        return sorted(f"tap{port[:11]}" for port in (await self.state.host("h1")).guests[uuid].taps)

    async def lose_taps(self, uuid: str) -> None:
        (await self.state.host("h1")).guests[uuid].taps = []

    async def run_of(self, uuid: str) -> object:
        guest = (await self.state.host("h1")).guests[uuid]
        if guest.power_state in (PowerState.NOSTATE, PowerState.SHUTDOWN):
            return None
        return guest.effects.get("running", 0), guest.effects.get("rebooted", 0)

    async def powers_off_itself(self, driver: Driver, uuid: str) -> None:
        assert isinstance(driver, SimDriver)
        await driver.guest_changes(uuid, PowerState.SHUTDOWN)

    async def left(self) -> list[str]:
        return (await self.state.host("h1")).left()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SimRig]:
    state = SimState(tmp_path / "sim.sqlite")
    await state.start()
    yield SimRig(tmp_path, state)
    await state.close()


class TestSimulated(DriverContract):
    pass
