"""What goes wrong on a host with a real hypervisor, and what is told and left then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kilonova.agent.driver import Driver, GuestEvent, PowerState
from kilonova.agent.libvirt.disks import BASE
from kilonova.allinone.libvirtd import ensure_libvirtd, guest_pids, libvirt_uri, running
from kilonova.errors import HostFailure, Invalid, Transient
from tests.driver.contract import build, driver, no_progress, remove, started
from tests.driver.libvirt_rig import NAMESPACE, LibvirtRig

__all__ = ["driver"]

pytestmark = pytest.mark.timeout(600)

SEED = int(os.environ.get("KILONOVA_SEED", time.time_ns() % 1_000_000))


@pytest.fixture
def rig(libvirt_state: Path, tmp_path: Path, guest_image: Path) -> Iterator[LibvirtRig]:
    rig = LibvirtRig(libvirt_uri(libvirt_state), tmp_path, guest_image, NAMESPACE)
    yield rig
    rig.clean()


@pytest.fixture
def small_disk(rig: LibvirtRig) -> Iterator[Path]:
    """The instances' directory is a file system of 24 MiB: the image fits, but not its raw form as well."""
    rig.options.state_path.mkdir()
    path = str(rig.options.state_path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], check=True)
    yield rig.options.state_path
    subprocess.run(["umount", "--lazy", path], check=True)


# -- files


async def test_a_missing_base_image_is_told_of_and_comes_back(rig: LibvirtRig, driver: Driver) -> None:
    spec = rig.spec()
    await build(rig, driver, spec, start=False)
    for path in (rig.options.state_path / BASE).iterdir():
        path.unlink()
    with pytest.raises(HostFailure, match=r"base image .*_base.* is missing"):
        await driver.ensure_running(spec.uuid)
    await build(rig, driver, spec)
    assert await driver.power_state(spec.uuid) is PowerState.RUNNING


async def test_a_missing_root_disk_is_told_of(rig: LibvirtRig, driver: Driver) -> None:
    spec = rig.spec()
    await build(rig, driver, spec, start=False)
    (rig.options.state_path / spec.uuid / "disk").unlink()
    with pytest.raises(HostFailure, match=r"root disk .* is missing"):
        await driver.ensure_running(spec.uuid)


async def test_a_full_disk_is_told_of_and_nothing_is_left(rig: LibvirtRig, small_disk: Path, driver: Driver) -> None:
    with pytest.raises(HostFailure, match="disk is full"):
        await build(rig, driver, rig.spec())
    assert await rig.left() == []
    assert [path.name for path in (small_disk / BASE).iterdir() if path.suffix != ".lock"] == []


async def test_what_the_hypervisor_cannot_do_is_refused_before_anything_is_made(
    rig: LibvirtRig, driver: Driver
) -> None:
    abacus = rig.image(properties={"hw_machine_type": "abacus"})
    for error, changes in (
        (Invalid, {"extra_specs": {"hw:cpu_realtime": "yes"}}),
        (Invalid, {"image": abacus}),
        (HostFailure, {"machine_type": "abacus"}),
        (HostFailure, {"cpu_model": "abacus"}),
    ):
        spec = rig.spec(**changes)
        with pytest.raises(error, match=r"abacus|realtime"):
            await build(rig, driver, spec)
        await remove(driver, spec.uuid)
    assert await rig.left() == []


# -- what is not ours

FOREIGN = """<domain type='qemu'><name>theirs</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>
<os><type>hvm</type></os><devices/></domain>"""


async def test_a_guest_that_is_not_ours_is_listed_and_never_touched(
    rig: LibvirtRig, driver: Driver, tmp_path: Path
) -> None:
    spec = rig.spec()
    (tmp_path / "theirs.xml").write_text(FOREIGN.format(uuid=spec.uuid))
    await rig.virsh("define", str(tmp_path / "theirs.xml"))
    theirs = rig.options.state_path / spec.uuid
    theirs.mkdir()
    (theirs / "disk").touch()

    (guest,) = await driver.guests()
    assert (guest.name, guest.deployment_id) == ("theirs", None)
    assert await driver.power_state(spec.uuid) is PowerState.NOSTATE
    with pytest.raises(HostFailure, match="belongs to nobody we know"):
        await build(rig, driver, spec)
    with pytest.raises(HostFailure, match="not of this deployment"):
        await driver.ensure_defined(spec)
    for verb in (driver.ensure_running, driver.ensure_paused, driver.ensure_suspended):
        with pytest.raises(HostFailure, match="not defined"):
            await verb(spec.uuid)
    await remove(driver, spec.uuid)
    assert "theirs" in await rig.left()
    assert (theirs / "disk").exists()


async def test_two_deployments_on_one_libvirt_leave_each_other_alone(rig: LibvirtRig, driver: Driver) -> None:
    spec = rig.spec()
    await build(rig, driver, spec)
    other = rig.driver(deployment_id="another")
    await other.start()
    try:
        await remove(other, spec.uuid)
        assert await other.power_state(spec.uuid) is PowerState.NOSTATE
    finally:
        await other.close()
    assert await driver.power_state(spec.uuid) is PowerState.RUNNING
    assert f"{spec.uuid}/disk" in await rig.left()


# -- processes that die


async def restart_libvirtd(state: Path, sig: signal.Signals) -> None:
    daemon = running(state)
    assert daemon is not None
    os.kill(daemon.pid, sig)
    while running(state) is not None:
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
async def test_guests_and_driver_outlive_libvirtd(
    rig: LibvirtRig, driver: Driver, libvirt_state: Path, sig: signal.Signals
) -> None:
    spec = rig.spec()
    await build(rig, driver, spec)
    run = await rig.run_of(spec.uuid)
    heard: asyncio.Queue[GuestEvent] = asyncio.Queue()

    async def listen() -> None:
        async for event in driver.events():
            heard.put_nowait(event)

    listening = asyncio.create_task(listen())
    await restart_libvirtd(libvirt_state, sig)
    try:
        for _ in range(2):
            with pytest.raises(Transient, match="libvirt"):
                await driver.ensure_stopped(spec.uuid, 0)
        await asyncio.to_thread(ensure_libvirtd, libvirt_state, NAMESPACE)
        while True:
            with contextlib.suppress(Transient):
                assert await driver.power_state(spec.uuid) is PowerState.RUNNING
                break
        assert await rig.run_of(spec.uuid) == run
        # events of the new connection
        await driver.ensure_paused(spec.uuid)
        while (await asyncio.wait_for(heard.get(), 30)).power_state is not PowerState.PAUSED:
            pass
    finally:
        await asyncio.to_thread(ensure_libvirtd, libvirt_state, NAMESPACE)
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


async def test_a_libvirtd_that_hangs_makes_calls_end_at_their_deadline(rig: LibvirtRig, libvirt_state: Path) -> None:
    spec = rig.spec()
    driver = rig.driver(call_timeout=3.0)
    await driver.start()
    daemon = running(libvirt_state)
    assert daemon is not None
    try:
        await build(rig, driver, spec, start=False)
        os.kill(daemon.pid, signal.SIGSTOP)
        with pytest.raises(Transient, match="did not answer within 3 s"):
            await driver.power_state(spec.uuid)
        os.kill(daemon.pid, signal.SIGCONT)
        while True:
            with contextlib.suppress(Transient):
                await driver.ensure_running(spec.uuid)
                break
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
        await driver.close()


async def test_a_guest_whose_process_is_killed_is_told_of_and_starts_again(
    rig: LibvirtRig, driver: Driver, libvirt_state: Path
) -> None:
    spec = rig.spec()
    events = driver.events()
    first = asyncio.ensure_future(anext(events))
    await build(rig, driver, spec)
    assert (await asyncio.wait_for(first, 20)).power_state is PowerState.RUNNING
    (pid,) = guest_pids(libvirt_state)
    os.kill(pid, signal.SIGKILL)
    event = await asyncio.wait_for(anext(events), 20)
    assert event.power_state in (PowerState.SHUTDOWN, PowerState.CRASHED)
    await driver.ensure_running(spec.uuid)
    assert await driver.power_state(spec.uuid) is PowerState.RUNNING


async def test_an_agent_killed_anywhere_completes_when_it_is_started_again(rig: LibvirtRig, guest_image: Path) -> None:
    chance = random.Random(SEED)
    spec = rig.spec(config_drive=True, ephemeral_gb=1, swap_mb=16)
    command = [
        *(sys.executable, "-m", "tests.driver.killed_agent", rig.options.uri, str(rig.directory), str(guest_image)),
        msgspec.json.encode(spec).decode(),
    ]
    reached = []
    for _ in range(8):
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        # somewhere within one of the verbs, which are as likely however long they take
        victim = chance.randrange(1, 12)
        for _ in range(victim):
            if not (line := await process.stdout.readline()):
                break
            reached.append(line.decode().strip())
        await asyncio.sleep(chance.choice((0, 0.001, 0.01, 0.1, 0.5)))
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _err = await process.communicate()
    assert out.decode().split()[-1:] == ["done"], f"seed {SEED}, killed after {reached}"
    assert await rig.left() == [], f"seed {SEED}, killed after {reached}"


async def test_a_suspend_that_is_stopped_leaves_a_guest_that_runs_or_is_suspended(
    rig: LibvirtRig, driver: Driver
) -> None:
    spec = rig.spec(memory_mb=512)
    await build(rig, driver, spec)
    for moment in (0.01, 0.05, 0.2):
        task = asyncio.ensure_future(driver.ensure_suspended(spec.uuid))
        await asyncio.sleep(moment)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Transient, HostFailure):
            await task
        assert await driver.power_state(spec.uuid) in (PowerState.RUNNING, PowerState.SUSPENDED)
        await driver.ensure_resumed(spec.uuid)
        assert await driver.power_state(spec.uuid) is PowerState.RUNNING


async def test_half_made_files_of_a_killed_agent_are_swept_at_the_next_start(rig: LibvirtRig) -> None:
    async with started(rig) as driver:
        spec = rig.spec()
        await driver.ensure_image(spec.image, rig.source, None, no_progress)  # type: ignore[arg-type]  # it has one
        await driver.ensure_disks(spec)
    directory = rig.options.state_path
    (directory / ".gone-1").mkdir()
    (directory / ".gone-1" / "disk").touch()
    (directory / ".new-1").mkdir()
    (directory / spec.uuid / ".disk.1.new").touch()
    async with started(rig) as driver:
        assert sorted(path.name for path in directory.glob(".*")) == []
        assert sorted(path.name for path in (directory / spec.uuid).iterdir()) == ["disk", "kilonova.json"]
        await remove(driver, spec.uuid)


async def test_a_guest_on_machine_type_q35_starts_with_its_config_drive(rig: LibvirtRig, driver: Driver) -> None:
    spec = rig.spec(config_drive=True, image=rig.image(properties={"hw_machine_type": "q35"}))
    await build(rig, driver, spec)
    assert await driver.power_state(spec.uuid) is PowerState.RUNNING
    disks = await rig.virsh("domblklist", spec.uuid)
    assert "disk.config" in disks
    assert "sda" in disks


async def test_a_guest_that_does_not_let_go_of_a_nic_keeps_it(rig: LibvirtRig, driver: Driver) -> None:
    """A paused one cannot; asked again when it runs, it does."""
    nic = rig.nic()
    spec = rig.spec(nics=(nic,))
    without = msgspec.structs.replace(spec, nics=())
    await driver.ensure_plugged(spec)
    await build(rig, driver, spec)
    await rig.until_ready(driver, spec.uuid)
    await driver.ensure_paused(spec.uuid)
    with pytest.raises(Transient, match="does not let go"):
        await driver.ensure_detached(without, nic.port_id, nic.mac)
    assert await rig.taps(spec.uuid) == [nic.tap]
    await driver.ensure_unpaused(spec.uuid)
    await driver.ensure_detached(without, nic.port_id, nic.mac)
    assert await rig.taps(spec.uuid) == []
