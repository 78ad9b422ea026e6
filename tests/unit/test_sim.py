"""What is the simulated host's own: scripts, memory across kills, counts. What every driver does is in tests/driver."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kilonova.agent.commands import NoImages
from kilonova.agent.driver import ImageSpec, PowerState, Secrets
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.script import wishes
from kilonova.agent.sim.state import SimState
from kilonova.errors import HostFailure, Invalid, Transient
from kilonova.world import World
from tests.support.agents import SERVER, make_spec


class Clock(World):
    """Sleeping takes no time and is written down."""

    def __init__(self) -> None:
        super().__init__(1)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def no_progress(stage: str, percent: int) -> None:
    return


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def driver(clock: Clock) -> SimDriver:
    driver = SimDriver(SimOptions(), clock, host="h1")
    await driver.start()
    return driver


async def build(driver: SimDriver, **keys: str) -> None:
    spec = make_spec(metadata=keys)
    await driver.ensure_disks(spec)
    await driver.ensure_defined(spec)
    await driver.ensure_running(spec.uuid)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("", HostFailure), (":host", HostFailure), (":invalid", Invalid), (":transient", Transient)],
)
async def test_fail_at_strikes_before_the_effect_as_many_times_as_told(
    driver: SimDriver, kind: str, error: type[Exception]
) -> None:
    for _ in range(2):
        with pytest.raises(error):
            await build(driver, **{"sim:fail_at": f"running:2{kind}"})
    assert await driver.power_state(SERVER) is PowerState.SHUTDOWN
    await build(driver, **{"sim:fail_at": f"running:2{kind}"})
    assert driver.effects(SERVER) == {"disks": 1, "defined": 1, "running": 1}


async def test_fail_after_strikes_when_the_effect_is_done(driver: SimDriver) -> None:
    with pytest.raises(HostFailure):
        await build(driver, **{"sim:fail_after": "ensure_running:1"})
    assert await driver.power_state(SERVER) is PowerState.RUNNING


async def test_without_times_it_fails_always(driver: SimDriver) -> None:
    for _ in range(5):
        with pytest.raises(HostFailure):
            await build(driver, **{"sim:fail_at": "disks"})
    assert driver.left() == []


async def test_only_on_leaves_other_hosts_alone(driver: SimDriver) -> None:
    await build(driver, **{"sim:fail_at": "disks", "sim:only_on": "h2,h3"})
    assert await driver.power_state(SERVER) is PowerState.RUNNING


async def test_waits_are_the_hosts_and_the_requests_stretched_by_both_scales(clock: Clock) -> None:
    driver = SimDriver(SimOptions(durations={"running": 2.0}, time_scale=0.5), clock, host="h1")
    await build(driver, **{"sim:block_for": "running:3,disks:1", "sim:time_scale": "10"})
    assert clock.slept == [5.0, 25.0]


async def test_a_guest_that_ignores_the_power_button_is_cut_off_after_the_timeout(
    driver: SimDriver, clock: Clock
) -> None:
    await build(driver, **{"sim:ignores_shutdown": "true"})
    await driver.ensure_stopped(SERVER, 60.0)
    assert clock.slept == [60.0]
    assert await driver.power_state(SERVER) is PowerState.SHUTDOWN


def test_server_metadata_wins_over_image_and_flavor() -> None:
    spec = make_spec(
        extra_specs={"sim:time_scale": "2", "sim:fail_at": "disks"},
        metadata={"sim:time_scale": "4"},
        image=ImageSpec(id="i", size=1, disk_format="raw", properties={"sim:time_scale": "3"}),
    )
    wish = wishes("h1", spec)
    assert wish.time_scale == 4
    assert set(wish.fail_at) == {"disks"}


@pytest.mark.parametrize(
    "keys", [{"sim:fail_at": "levitate"}, {"sim:block_for": "running"}, {"sim:time_scale": "fast"}]
)
def test_a_key_that_cannot_be_understood_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="sim:"):
        wishes("h1", make_spec(metadata=keys))


async def test_power_changes_are_told_to_who_listens(driver: SimDriver) -> None:
    seen: list[PowerState] = []

    async def listen() -> None:
        async for event in driver.events():
            seen.append(event.power_state)

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await build(driver)
    await driver.ensure_paused(SERVER)
    await driver.guest_changes(SERVER, PowerState.CRASHED)
    await asyncio.sleep(0)
    task.cancel()
    assert seen == [PowerState.SHUTDOWN, PowerState.RUNNING, PowerState.PAUSED, PowerState.CRASHED]


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.downloads = 0

    async def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        self.downloads += 1
        for start in range(offset, len(self.data), 100):
            await asyncio.sleep(0)
            yield self.data[start : start + 100]


async def test_an_image_is_read_once_for_many_and_its_hash_compared(clock: Clock) -> None:
    data = b"x" * 1000
    source = Bytes(data)
    digest = hashlib.sha512(data).hexdigest()
    image = ImageSpec(id="i", size=1000, disk_format="raw", hash_algo="sha512", hash_value=digest)
    driver = SimDriver(SimOptions(download_images=True), clock)
    told: list[int] = []

    async def progress(stage: str, percent: int) -> None:
        told.append(percent)

    await asyncio.gather(*(driver.ensure_image(image, source, None, progress) for _ in range(5)))
    assert source.downloads == 1
    assert told == sorted(told)
    assert told[-1] == 100
    damaged = msgspec.structs.replace(image, id="j", hash_value="0" * 128)
    with pytest.raises(Invalid, match="checksum"):
        await driver.ensure_image(damaged, source, None, no_progress)


async def test_images_in_use_are_never_evicted(driver: SimDriver) -> None:
    for name in ("image-1", "image-2"):
        image = ImageSpec(id=name, size=10, disk_format="raw")
        await driver.ensure_image(image, NoImages(), None, no_progress)
    await build(driver)
    assert await driver.ensure_images_evicted(unused_for=0.0, free_bytes=0) == ["image-2"]


async def test_counts_outlive_the_guest_and_nothing_else_does(driver: SimDriver) -> None:
    spec = make_spec()
    await build(driver)
    await driver.ensure_config_drive(spec, Secrets())
    await driver.ensure_absent(SERVER)
    await driver.ensure_disks_absent(SERVER)
    assert driver.left() == []
    assert await driver.guests() == []
    assert driver.effects(SERVER)["running"] == 1


async def test_guests_outlive_the_agent_s_process_however_it_ends(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, sys
        from kilonova.agent.sim import SimDriver, SimOptions, SimState
        from kilonova.world import World
        from tests.support.agents import make_spec

        async def main():
            state = SimState(sys.argv[1])
            await state.start()
            driver = SimDriver(SimOptions(), World(), host="h1", state=state)
            await driver.start()
            number = 0
            while True:
                spec = make_spec(f"server-{number}")
                await driver.ensure_disks(spec)
                await driver.ensure_defined(spec)
                await driver.ensure_running(spec.uuid)
                number += 1
                print(number, flush=True)

        asyncio.run(main())
    """)
    path = tmp_path / "sim.sqlite"
    arguments = [sys.executable, "-c", program, str(path)]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
    assert process.stdout is not None
    last = 0
    while last < 20:
        last = int(await process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    last = int(((await process.stdout.read()).splitlines() or [str(last)])[-1])
    await process.wait()
    state = SimState(path)
    await state.start()
    driver = SimDriver(SimOptions(), World(), host="h1", state=state)
    await driver.start()
    for number in range(last):
        assert await driver.power_state(f"server-{number}") is PowerState.RUNNING
        assert driver.effects(f"server-{number}") == {"disks": 1, "defined": 1, "running": 1}
    assert "guest ready web" in await driver.console_output("server-0", None)
    other = SimDriver(SimOptions(), World(), host="h2", state=state)
    await other.start()
    assert await other.guests() == []
    await state.close()


@pytest.mark.parametrize("hard", [True, False])
async def test_a_guest_without_disks_does_not_come_up_by_a_reboot(driver: SimDriver, hard: bool) -> None:
    """A rebuild that failed half way has left it so."""
    await build(driver)
    await driver.ensure_disks_absent(SERVER)
    with pytest.raises(HostFailure, match="disks of server"):
        await driver.ensure_rebooted(SERVER, hard=hard, marker="1", timeout=1.0)
