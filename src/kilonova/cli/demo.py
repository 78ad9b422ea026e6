"""`kilonova demo`: from nothing to a running guest, every step shown."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import typer

from kilonova.allinone import demo as steps
from kilonova.allinone.settings import CloudSettings
from kilonova.allinone.up import UpOptions, run_down, up_detached
from kilonova.cli.cloud import DEFAULT_STATE_DIR, StateDir, print_usage, say
from kilonova.cli.guest_image import guest_cache
from kilonova.guest.build import build_image
from kilonova.guest.disk import BuildError


def demo(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    port_offset: Annotated[int, typer.Option(min=0, help="Added to every port.")] = 0,
    hypervisor: Annotated[Literal["libvirt", "sim"] | None, typer.Option(help="As for `up`.")] = None,
    teardown: Annotated[bool, typer.Option("--teardown", help="Stop everything at the end.")] = False,
) -> None:
    """Bring a cloud up, boot a tiny server on it, log in, show its screen. Again: safe, and fast."""
    began = time.monotonic()
    options = UpOptions(state_dir=state_dir.resolve(), port_offset=port_offset, hypervisor=hypervisor)
    try:
        _headline("the cloud")
        with ThreadPoolExecutor(1) as pool:
            building = pool.submit(build_image, guest_cache())
            settings = up_detached(options, say=say)
            _headline("a tiny guest image")
            image, disk_format = _image(building.result, settings)
        client = steps.Client(settings, say)
        steps.ensure_image(client, image, disk_format)
        _headline("a flavor and a key pair")
        directory = settings.state_dir / "demo"
        steps.ensure_flavor(client)
        private_key = steps.ensure_key(client, directory)
        if settings.networking == "neutron":
            _headline("a network, a router, a security group")
            steps.ensure_network(client)
        _headline("a server, with user data and a config drive")
        steps.ensure_server(client, settings, directory, say)
        say("waiting for the guest's own word")
        console = steps.wait_for_guest(client, say)
        say(f"$ openstack console log show --lines 12 {steps.SERVER}")
        for line in console.splitlines()[-12:]:
            say(f"    {line}")
        if settings.networking == "neutron":
            _headline("a login through a floating IP")
            address = steps.ensure_floating_ip(client)
            if settings.hypervisor == "libvirt":
                for line in steps.login(address, private_key, say).splitlines():
                    say(f"    {line}")
            else:
                say(f"(nothing answers at {address}: the hypervisor is simulated)")
        _headline("the guest's screen")
        steps.picture_of_screen(client, directory / "screen.png", say)
        if not teardown:
            for kind, what in (("novnc", "its screen"), ("serial", "its serial line")):
                say(f"    {what} in your browser: {steps.console_url(client, kind)}")
            say(f"    (each opens once, within 10 minutes; root's password is in {directory / steps.PASSWORD})")
    finally:
        if teardown:
            _headline("stopping everything")
            run_down(options.state_dir, stop_guests=True, say=say)
    _headline(f"done after {time.monotonic() - began:.0f} s")
    if not teardown:
        _how_to_go_on(settings, private_key)


def _image(built: object, settings: CloudSettings) -> tuple[Path, str]:
    assert callable(built)
    try:
        return built(), "qcow2"
    except BuildError as error:
        if settings.hypervisor != "sim":
            raise
        # A simulated guest boots from anything.
        say(f"(no guest image: {error.message}; an empty one does for the simulated hypervisor)")
        empty = settings.state_dir / "demo/empty.raw"
        empty.parent.mkdir(exist_ok=True)
        empty.write_bytes(bytes(1 << 20))
        return empty, "raw"


def _how_to_go_on(settings: CloudSettings, private_key: Path) -> None:
    print_usage(settings, detached=True)
    for line in (
        "",
        "more to try:",
        f"openstack server show {steps.SERVER}",
        f"openstack console log show {steps.SERVER}",
        f"openstack console url show {steps.SERVER}",
        f"openstack server event list {steps.SERVER}",
        f"openstack server reboot --wait {steps.SERVER}",
        f"openstack server delete --wait {steps.SERVER}",
        f"(the private key of key pair {steps.KEY}: {private_key})",
        "stop everything, guests too:  kilonova down --stop-guests" + f" --state-dir {settings.state_dir}",
    ):
        say(f"  {line}")


def _headline(text: str) -> None:
    say(f"==> {text}")
