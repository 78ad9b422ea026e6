"""What every driver does, whatever hypervisor is below: one suite, run on each.

A suite for a driver is a subclass of `DriverContract` whose module has a fixture `rig`.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kilonova.agent.driver import Driver, GuestEvent, ImageSpec, PowerState, Secrets, ServerSpec
from kilonova.errors import HostFailure, Invalid, Transient
from kilonova.nic import Nic

DEPLOYMENT = "contract"
NO_SECRETS = Secrets()


class Source:
    """An Image service of one image. `breaks_at`: the next download ends there, as a lost connection does."""

    def __init__(self, path: Path, *, slow: float = 0.0) -> None:
        self.path = path
        self.slow = slow
        self.offsets: list[int] = []
        self.breaks_at: int | None = None

    async def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        self.offsets.append(offset)
        breaks_at, self.breaks_at = self.breaks_at, None
        with self.path.open("rb") as stream:
            stream.seek(offset)
            while chunk := stream.read(1024**2):
                if breaks_at is not None and stream.tell() > breaks_at:
                    raise Transient("The connection to Image was lost.")
                await asyncio.sleep(self.slow)
                yield chunk


class Rig(abc.ABC):
    """A host to try a driver on. Driver objects come and go; the host below them stays."""

    source: Source

    @abc.abstractmethod
    def driver(self) -> Driver:
        """A new driver object of the same host, not started: what an agent has after its restart."""

    @abc.abstractmethod
    def large_image(self) -> tuple[ImageSpec, Source]:
        """An image that needs a root disk of 2 GiB."""

    @abc.abstractmethod
    async def until_ready(self, driver: Driver, uuid: str) -> None:
        """The guest says 'guest ready' once more than when this was last called."""

    @abc.abstractmethod
    async def until_said(self, driver: Driver, uuid: str, text: str) -> None:
        """The guest has said this on its console."""

    @abc.abstractmethod
    async def taps(self, uuid: str) -> list[str]:
        """Names of the server's taps that are plugged on the host."""

    @abc.abstractmethod
    async def lose_taps(self, uuid: str) -> None:
        """They are gone, as with a network namespace that somebody deletes."""

    @abc.abstractmethod
    async def run_of(self, uuid: str) -> object:
        """What names the time since the guest was last started; None when it is off."""

    @abc.abstractmethod
    async def powers_off_itself(self, driver: Driver, uuid: str) -> None: ...

    @abc.abstractmethod
    async def left(self) -> list[str]:
        """What exists of any server: guests, disks, half-made files."""

    def image(self, **changes: Any) -> ImageSpec:
        data = self.source.path.read_bytes()
        digest = hashlib.sha512(data).hexdigest()
        image = ImageSpec(
            id="0a51c15c-6f3b-4f4c-8c43-6c1a4c7f0001",
            size=len(data),
            disk_format="qcow2",
            hash_algo="sha512",
            hash_value=digest,
        )
        return msgspec.structs.replace(image, **changes)

    def nic(self) -> Nic:
        port, network = uuid.uuid4(), uuid.uuid4()
        mac = "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in port.bytes[:3])
        return Nic(port_id=str(port), mac=mac, network_id=str(network), mtu=1450, vif_type="bridge")

    def spec(self, **changes: Any) -> ServerSpec:
        number = uuid.uuid4()
        spec = ServerSpec(
            uuid=str(number),
            name=f"instance-{number.hex[:8]}",
            display_name="A server",
            hostname="a-server",
            project_id="project",
            user_id="user",
            deployment_id=DEPLOYMENT,
            vcpus=1,
            memory_mb=128,
            root_gb=1,
            image=self.image(),
        )
        return msgspec.structs.replace(spec, **changes)


async def no_progress(stage: str, percent: int) -> None:
    return


@pytest.fixture
async def driver(rig: Rig) -> AsyncIterator[Driver]:
    async with started(rig) as driver:
        yield driver


@contextlib.asynccontextmanager
async def started(rig: Rig) -> AsyncIterator[Driver]:
    driver = rig.driver()
    await driver.start()
    try:
        yield driver
    finally:
        await driver.close()


async def build(rig: Rig, driver: Driver, spec: ServerSpec, *, start: bool = True) -> None:
    if spec.image is not None:
        await driver.ensure_image(spec.image, rig.source, None, no_progress)
    await driver.ensure_disks(spec)
    if spec.config_drive:
        await driver.ensure_config_drive(spec, NO_SECRETS)
    await driver.ensure_defined(spec)
    if start:
        await driver.ensure_running(spec.uuid)


async def remove(driver: Driver, uuid: str) -> None:
    await driver.ensure_absent(uuid)
    await driver.ensure_disks_absent(uuid)


async def no_such(call: Awaitable[object]) -> None:
    with pytest.raises(HostFailure, match="not defined"):
        await call


class DriverContract:
    """Guests are real where the driver's are: only tests that need a guest's own doing wait for one to boot."""

    # -- building

    async def test_a_built_guest_runs_says_ready_and_powers_off_when_asked(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec(config_drive=True, ephemeral_gb=1, swap_mb=16)
        await build(rig, driver, spec)
        assert await driver.power_state(spec.uuid) is PowerState.RUNNING
        await rig.until_ready(driver, spec.uuid)
        output = await driver.console_output(spec.uuid, None)
        assert "guest ready a-server" in output
        assert await driver.console_output(spec.uuid, 1) == output.splitlines(keepends=True)[-1]
        assert await driver.console_output(spec.uuid, 0) == ""

        run = await rig.run_of(spec.uuid)
        await driver.ensure_rebooted(spec.uuid, hard=False, marker="m1", timeout=30)
        await rig.until_ready(driver, spec.uuid)
        assert await rig.run_of(spec.uuid) != run

        await driver.ensure_stopped(spec.uuid, 60)
        assert await driver.power_state(spec.uuid) is PowerState.SHUTDOWN
        await remove(driver, spec.uuid)
        assert await rig.left() == []

    async def test_every_building_verb_done_twice_changes_nothing(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec(config_drive=True, ephemeral_gb=1, swap_mb=16)
        await build(rig, driver, spec)
        left, run = await rig.left(), await rig.run_of(spec.uuid)
        await build(rig, driver, spec)
        assert (await rig.left(), await rig.run_of(spec.uuid)) == (left, run)
        assert len(rig.source.offsets) == 1
        for _ in range(2):
            await remove(driver, spec.uuid)
        assert await rig.left() == []

    async def test_a_guest_is_listed_with_its_name_deployment_and_power_state(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        await build(rig, driver, spec, start=False)
        (guest,) = [guest for guest in await driver.guests() if guest.uuid == spec.uuid]
        assert (guest.name, guest.deployment_id, guest.power_state) == (spec.name, DEPLOYMENT, PowerState.SHUTDOWN)
        await driver.ensure_running(spec.uuid)
        (guest,) = [guest for guest in await driver.guests() if guest.uuid == spec.uuid]
        assert guest.power_state is PowerState.RUNNING

    async def test_what_was_chosen_is_reported_and_a_recorded_choice_is_kept(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        await build(rig, driver, spec, start=False)
        defined = await driver.ensure_defined(spec)
        assert defined.machine_type
        assert defined.cpu_model
        recorded = msgspec.structs.replace(spec, machine_type=defined.machine_type, cpu_model=defined.cpu_model)
        assert await driver.ensure_defined(recorded) == defined

    async def test_the_inventory_names_what_the_host_has(self, driver: Driver) -> None:
        inventory = await driver.inventory()
        assert min(inventory.vcpus, inventory.memory_mb, inventory.local_gb, inventory.hypervisor_version) > 0
        assert inventory.hypervisor_hostname
        assert inventory.cpu_info["arch"]
        assert inventory == msgspec.structs.replace(await driver.inventory(), uptime=inventory.uptime)

    # -- images

    async def test_ten_at_once_share_one_download_and_all_see_its_progress(self, rig: Rig, driver: Driver) -> None:
        said: list[list[int]] = [[] for _ in range(10)]

        def listener(heard: list[int]) -> Callable[[str, int], Awaitable[None]]:
            async def progress(stage: str, percent: int) -> None:
                if stage == "image":
                    heard.append(percent)

            return progress

        calls = [driver.ensure_image(rig.image(), rig.source, None, listener(heard)) for heard in said]
        await asyncio.gather(*calls)
        assert rig.source.offsets == [0]
        for heard in said:
            assert heard == sorted(heard)
            assert heard[-1] == 100

    async def test_a_download_goes_on_for_the_others_when_the_first_who_asked_goes_away(
        self, rig: Rig, driver: Driver
    ) -> None:
        rig.source.slow = 0.02
        first = asyncio.create_task(driver.ensure_image(rig.image(), rig.source, None, no_progress))
        while not rig.source.offsets:
            await asyncio.sleep(0)
        others = [
            asyncio.create_task(driver.ensure_image(rig.image(), rig.source, None, no_progress)) for _ in range(3)
        ]
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(*others)
        assert rig.source.offsets == [0]

    async def test_an_interrupted_download_is_made_whole_by_the_next_attempt(self, rig: Rig, driver: Driver) -> None:
        rig.source.breaks_at = rig.image().size // 2
        with pytest.raises(Transient):
            await driver.ensure_image(rig.image(), rig.source, None, no_progress)
        await driver.ensure_image(rig.image(), rig.source, None, no_progress)
        assert len(rig.source.offsets) == 2

    async def test_an_image_with_another_checksum_is_refused_and_not_kept(self, rig: Rig, driver: Driver) -> None:
        image = rig.image(hash_value="0" * 128)
        for _ in range(2):
            with pytest.raises(Invalid, match="checksum"):
                await driver.ensure_image(image, rig.source, None, no_progress)
        assert rig.source.offsets == [0, 0]
        assert await driver.ensure_images_evicted(unused_for=0, free_bytes=0) == []

    async def test_an_image_larger_than_the_flavors_disk_is_refused(self, rig: Rig, driver: Driver) -> None:
        image, source = rig.large_image()
        spec = rig.spec(image=image, root_gb=1)
        await driver.ensure_image(image, source, None, no_progress)
        with pytest.raises(Invalid, match=r"2 GiB.*1"):
            await driver.ensure_disks(spec)
        await remove(driver, spec.uuid)
        assert await rig.left() == []

    async def test_an_image_is_evicted_once_unused_and_never_while_a_disk_needs_it(
        self, rig: Rig, driver: Driver
    ) -> None:
        spec = rig.spec()
        await build(rig, driver, spec, start=False)
        everything = 1 << 62
        assert await driver.ensure_images_evicted(unused_for=0, free_bytes=everything) == []
        await remove(driver, spec.uuid)
        assert await driver.ensure_images_evicted(unused_for=3600, free_bytes=0) == []
        assert await driver.ensure_images_evicted(unused_for=3600, free_bytes=everything) == [rig.image().id]
        await driver.ensure_image(rig.image(), rig.source, None, no_progress)
        assert len(rig.source.offsets) == 2

    # -- power

    async def test_power_verbs_reach_their_state_and_stay_there(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        await build(rig, driver, spec)
        for verb, state in (
            (driver.ensure_paused, PowerState.PAUSED),
            (driver.ensure_unpaused, PowerState.RUNNING),
            (driver.ensure_suspended, PowerState.SUSPENDED),
            (driver.ensure_resumed, PowerState.RUNNING),
            (driver.ensure_paused, PowerState.PAUSED),
            (driver.ensure_suspended, PowerState.SUSPENDED),
            (driver.ensure_running, PowerState.RUNNING),
        ):
            for _ in range(2):
                await verb(spec.uuid)
                assert await driver.power_state(spec.uuid) is state
        for _ in range(2):
            await driver.ensure_stopped(spec.uuid, 0)
            assert await driver.power_state(spec.uuid) is PowerState.SHUTDOWN
        await driver.ensure_running(spec.uuid)
        await driver.ensure_suspended(spec.uuid)
        await driver.ensure_stopped(spec.uuid, 5)
        assert await driver.power_state(spec.uuid) is PowerState.SHUTDOWN

    async def test_what_a_guest_cannot_do_in_its_state_is_refused(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        await build(rig, driver, spec, start=False)
        for verb in (driver.ensure_paused, driver.ensure_unpaused, driver.ensure_suspended):
            with pytest.raises(HostFailure, match="SHUTDOWN"):
                await verb(spec.uuid)

    async def test_a_guest_is_rebooted_exactly_once_per_marker(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        await build(rig, driver, spec)
        runs = [await rig.run_of(spec.uuid)]
        for marker in ("m1", "m1", "m2"):
            await driver.ensure_rebooted(spec.uuid, hard=True, marker=marker, timeout=0)
            runs.append(await rig.run_of(spec.uuid))
        assert runs[0] != runs[1] == runs[2] != runs[3]
        # defined anew in between: the marker is remembered with the guest
        await driver.ensure_defined(msgspec.structs.replace(spec, display_name="renamed"))
        async with started(rig) as later:
            await later.ensure_rebooted(spec.uuid, hard=True, marker="m2", timeout=0)
        assert await rig.run_of(spec.uuid) == runs[3]

    @pytest.mark.parametrize("state", ["paused", "suspended", "stopped"])
    async def test_a_reboot_leads_to_running_from_every_state(self, rig: Rig, driver: Driver, state: str) -> None:
        spec = rig.spec()
        await build(rig, driver, spec)
        if state == "stopped":
            await driver.ensure_stopped(spec.uuid, 0)
        else:
            await getattr(driver, f"ensure_{state}")(spec.uuid)
        await driver.ensure_rebooted(spec.uuid, hard=True, marker="m", timeout=0)
        assert await driver.power_state(spec.uuid) is PowerState.RUNNING
        assert await rig.run_of(spec.uuid) is not None

    async def test_a_soft_reboot_of_a_guest_that_does_not_listen_becomes_a_hard_one(
        self, rig: Rig, driver: Driver
    ) -> None:
        spec = rig.spec(metadata={"sim:ignores_shutdown": "true"})
        await build(rig, driver, spec)
        run = await rig.run_of(spec.uuid)
        # it has only just been switched on: nobody listens to the power button yet
        await driver.ensure_rebooted(spec.uuid, hard=False, marker="m", timeout=0.5)
        assert await driver.power_state(spec.uuid) is PowerState.RUNNING
        assert await rig.run_of(spec.uuid) != run

    async def test_verbs_on_a_server_that_is_not_here_say_so(self, driver: Driver) -> None:
        missing = str(uuid.uuid4())
        assert await driver.power_state(missing) is PowerState.NOSTATE
        await no_such(driver.ensure_running(missing))
        await no_such(driver.ensure_stopped(missing, 1))
        await no_such(driver.ensure_rebooted(missing, hard=True, marker="m", timeout=0))
        await no_such(driver.ensure_paused(missing))
        await no_such(driver.diagnostics(missing))
        await remove(driver, missing)

    # -- watching and asking

    async def test_a_guest_that_changes_by_itself_is_told_of(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        heard: asyncio.Queue[GuestEvent] = asyncio.Queue()

        async def listen() -> None:
            async for event in driver.events():
                heard.put_nowait(event)

        listening = asyncio.create_task(listen())
        try:
            await build(rig, driver, spec)
            event = await asyncio.wait_for(heard.get(), 20)
            while event.power_state is not PowerState.RUNNING:
                event = await asyncio.wait_for(heard.get(), 20)
            await rig.powers_off_itself(driver, spec.uuid)
            event = await asyncio.wait_for(heard.get(), 60)
            assert event == GuestEvent(uuid=spec.uuid, power_state=PowerState.SHUTDOWN)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    async def test_diagnostics_have_the_standard_fields(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec(config_drive=True)
        await build(rig, driver, spec)
        told = await driver.diagnostics(spec.uuid)
        assert told["state"] == "running"
        assert told["num_cpus"] == 1
        assert isinstance(told["memory_details"], dict)
        assert told["memory_details"]["maximum"] == 128
        await driver.ensure_stopped(spec.uuid, 0)
        assert (await driver.diagnostics(spec.uuid))["state"] == "shutdown"

    async def test_the_consoles_log_can_outlive_the_disks(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        await build(rig, driver, spec)
        await driver.ensure_absent(spec.uuid)
        await driver.ensure_disks_absent(spec.uuid, keep_console_log=True)
        await driver.ensure_disks_absent(spec.uuid)
        assert await rig.left() == []

    # -- network

    async def test_nics_come_and_go_with_a_running_guest_seeing_it(self, rig: Rig, driver: Driver) -> None:
        first, second = rig.nic(), rig.nic()
        one = rig.spec(nics=(first,))
        both = msgspec.structs.replace(one, nics=(first, second))
        await driver.ensure_plugged(one)
        await build(rig, driver, one)
        await rig.until_ready(driver, one.uuid)
        for _ in range(2):
            await driver.ensure_attached(both, second.port_id)
        assert await rig.taps(one.uuid) == sorted([first.tap, second.tap])
        await rig.until_said(driver, one.uuid, f" {second.mac}")
        for _ in range(2):
            await driver.ensure_detached(one, second.port_id, second.mac)
        assert await rig.taps(one.uuid) == [first.tap]
        await rig.until_said(driver, one.uuid, "nic removed")
        # It is as it was: what is started next has the first one alone.
        await driver.ensure_rebooted(one.uuid, hard=True, marker="m", timeout=0)
        assert await rig.taps(one.uuid) == [first.tap]
        await driver.ensure_absent(one.uuid)
        await driver.ensure_unplugged(one.uuid)
        assert await rig.taps(one.uuid) == []

    async def test_a_nic_attached_to_a_guest_that_is_off_is_there_when_it_starts(
        self, rig: Rig, driver: Driver
    ) -> None:
        nic = rig.nic()
        without = rig.spec()
        await build(rig, driver, without, start=False)
        await driver.ensure_attached(msgspec.structs.replace(without, nics=(nic,)), nic.port_id)
        await driver.ensure_running(without.uuid)
        assert await rig.taps(without.uuid) == [nic.tap]
        await driver.ensure_stopped(without.uuid, 0)
        await driver.ensure_detached(without, nic.port_id, nic.mac)
        assert await rig.taps(without.uuid) == []
        await driver.ensure_running(without.uuid)

    async def test_a_guest_whose_taps_are_lost_starts_once_they_are_plugged_again(
        self, rig: Rig, driver: Driver
    ) -> None:
        spec = rig.spec(nics=(rig.nic(), rig.nic()))
        await driver.ensure_plugged(spec)
        await build(rig, driver, spec)
        await driver.ensure_stopped(spec.uuid, 0)
        await rig.lose_taps(spec.uuid)
        with pytest.raises((HostFailure, Transient)):
            await driver.ensure_running(spec.uuid)
        await driver.ensure_plugged(spec)
        await driver.ensure_running(spec.uuid)
        assert await rig.taps(spec.uuid) == sorted(nic.tap for nic in spec.nics)

    async def test_taps_of_other_ports_than_those_to_keep_are_unplugged(self, rig: Rig, driver: Driver) -> None:
        kept, other = rig.nic(), rig.nic()
        spec = rig.spec(nics=(kept, other))
        await driver.ensure_plugged(spec)
        for _ in range(2):
            await driver.ensure_unplugged(spec.uuid, keep=[kept.port_id])
            assert await rig.taps(spec.uuid) == [kept.tap]

    # -- agents that come and go

    async def test_a_new_driver_object_adopts_what_runs(self, rig: Rig, driver: Driver) -> None:
        spec = rig.spec()
        await build(rig, driver, spec)
        run = await rig.run_of(spec.uuid)
        async with started(rig) as later:
            assert await later.power_state(spec.uuid) is PowerState.RUNNING
            await build(rig, later, spec)
            assert await rig.run_of(spec.uuid) == run
            await remove(later, spec.uuid)
        assert await rig.left() == []

    @pytest.mark.parametrize("moment", [0.0, 0.003, 0.01, 0.03, 0.1, 0.3])
    async def test_every_verb_stopped_in_the_middle_is_completed_by_another_driver_object(
        self, rig: Rig, driver: Driver, moment: float
    ) -> None:
        spec = rig.spec(config_drive=True, ephemeral_gb=1, swap_mb=16)
        uuid = spec.uuid

        async def stop_and_repeat(verb: Callable[[Driver], Awaitable[object]]) -> None:
            async with started(rig) as dropped:
                task = asyncio.ensure_future(verb(dropped))
                await asyncio.sleep(moment)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await verb(driver)

        await stop_and_repeat(lambda d: d.ensure_image(rig.image(), rig.source, None, no_progress))
        await stop_and_repeat(lambda d: d.ensure_disks(spec))
        await stop_and_repeat(lambda d: d.ensure_config_drive(spec, NO_SECRETS))
        await stop_and_repeat(lambda d: d.ensure_defined(spec))
        await stop_and_repeat(lambda d: d.ensure_running(uuid))
        assert await driver.power_state(uuid) is PowerState.RUNNING
        await stop_and_repeat(lambda d: d.ensure_paused(uuid))
        await stop_and_repeat(lambda d: d.ensure_unpaused(uuid))
        await stop_and_repeat(lambda d: d.ensure_suspended(uuid))
        assert await driver.power_state(uuid) is PowerState.SUSPENDED
        await stop_and_repeat(lambda d: d.ensure_resumed(uuid))
        await stop_and_repeat(lambda d: d.ensure_rebooted(uuid, hard=True, marker="m", timeout=0))
        assert await driver.power_state(uuid) is PowerState.RUNNING
        await stop_and_repeat(lambda d: d.ensure_stopped(uuid, 0))
        assert await driver.power_state(uuid) is PowerState.SHUTDOWN
        await stop_and_repeat(lambda d: d.ensure_absent(uuid))
        await stop_and_repeat(lambda d: d.ensure_disks_absent(uuid))
        assert await rig.left() == []
