"""`kilonova up` and `kilonova down`: from options to a running cloud, and back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kilonova import config, netns
from kilonova.allinone import libvirtd, processes, state, uplink
from kilonova.allinone.cloud import Cloud
from kilonova.allinone.errors import CloudError, from_os_error
from kilonova.allinone.settings import (
    CloudSettings,
    HypervisorKind,
    NetworkingKind,
    Ports,
    advertised_host,
    host_in_url,
    netns_name,
    plane_dir,
)
from kilonova.allinone.status import read_report
from kilonova.errors import HostFailure, Invalid
from kilonova.network.plane.apply import remove_everything
from kilonova.network.plane.names import Spaces
from kilonova.network.plane.shell import Shell

Say = Callable[[str], None]


NETWORK_TOOLS = {"ip": "iproute2", "nft": "nftables", "dnsmasq": "dnsmasq-base", "radvd": "radvd"}
"""Programs by the Debian packages that they are in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What the user said."""

    state_dir: Path
    bind: str = "127.0.0.1"
    port_offset: int = 0
    hypervisor: HypervisorKind | None = None
    sim_hosts: int = 1
    networking: NetworkingKind = "neutron"
    config_files: tuple[Path, ...] = ()

    def as_words(self) -> list[str]:
        """The same as command line arguments."""
        words = ["--state-dir", str(self.state_dir), "--bind", self.bind, "--port-offset", str(self.port_offset)]
        if self.hypervisor is not None:
            words += ["--hypervisor", self.hypervisor]
        words += ["--sim-hosts", str(self.sim_hosts), "--networking", self.networking]
        for path in self.config_files:
            words += ["--config-file", str(path)]
        return words

    def as_dict(self) -> dict[str, str | int]:
        """What `kilonova status` shows of them."""
        return {
            "bind": self.bind,
            "port_offset": self.port_offset,
            "sim_hosts": self.sim_hosts,
            "networking": self.networking,
            "config_files": " ".join(str(path) for path in self.config_files),
        }


def choose_hypervisor(wanted: HypervisorKind | None, say: Say) -> HypervisorKind:
    """libvirt when it can be had, else the simulated one with a banner; what the user named, or the reason why not."""
    if wanted == "sim":
        return "sim"
    unavailable = libvirtd.probe_hypervisor()
    if unavailable is None:
        return "libvirt"
    if wanted == "libvirt":
        raise CloudError(f"--hypervisor libvirt: {unavailable.message}")
    say("=" * 78)
    say("SIMULATED HYPERVISOR: servers become ACTIVE, but nothing boots.")
    say(f"The reason: {unavailable.message}")
    say("=" * 78)
    return "sim"


def check_network_tools() -> None:
    """Raises CloudError when a program is missing that the network plane runs."""
    missing = {name for name in NETWORK_TOOLS if shutil.which(name, path=processes.SYSTEM_PATH) is None}
    if missing:
        packages = " ".join(sorted(NETWORK_TOOLS[name] for name in missing))
        raise CloudError(
            f"the network plane needs {', '.join(sorted(missing))}",
            remedy=f"apt-get install {packages} (or: make setup), or --networking none",
        )


def make_settings(options: UpOptions, opened: state.StateDir, hypervisor: HypervisorKind) -> CloudSettings:
    """The options with everything that follows from them."""
    ports = Ports.with_offset(options.port_offset)
    host = advertised_host(options.bind)
    in_url = host_in_url(host)
    return CloudSettings(
        state_dir=opened.path,
        cloud_id=opened.layout.cloud_id,
        bind=options.bind,
        host=host,
        ports=ports,
        hypervisor=hypervisor,
        sim_hosts=options.sim_hosts,
        libvirt_uri=libvirtd.libvirt_uri(opened.path) if hypervisor == "libvirt" else None,
        identity_url=f"http://{in_url}:{ports.identity}/v3",
        image_url=f"http://{in_url}:{ports.image}",
        service_username="nova",
        service_password=opened.secrets.nova,
        service_project="service",
        config_files=options.config_files,
        networking=options.networking,
        network_password=opened.secrets.neutron,
        metadata_secret=opened.secrets.shared,
    )


def run_up(options: UpOptions, *, say: Say, on_ready: Callable[[CloudSettings], None]) -> None:
    """Bring the cloud up and keep it up until a signal ends it. Raises CloudError."""
    try:
        # A mistake in an operator's file ends here, before anything is created.
        _check_files(options)
        opened = state.open_state_dir(options.state_dir)
        with state.held(opened.path):
            state.check_databases(opened.path)
            hypervisor = choose_hypervisor(options.hypervisor, say)
            settings = make_settings(options, opened, hypervisor)
            if settings.netns is not None:
                check_network_tools()
            cloud = Cloud(settings, opened.secrets, options=options.as_dict(), progress=say)
            _run(_up(cloud, settings, say, on_ready))
    except OSError as error:
        raise from_os_error(error, options.state_dir) from error


def _check_files(options: UpOptions) -> None:
    """Raises Invalid, also for what a deployment's roles would do and this cloud would leave undone in silence."""
    conf = config.load(options.config_files)
    if conf.enabled_ssl_apis or conf.ssl_only or conf.cert:
        raise Invalid(
            "Configuration: enabled_ssl_apis, cert, ssl_only: 'kilonova up' speaks plain HTTP, on loopback unless"
            " --bind says otherwise: put a proxy that speaks TLS in front of it."
        )
    if conf.sim.hosts not in (1, options.sim_hosts):
        raise Invalid(f"Configuration: [sim] hosts = {conf.sim.hosts}: of 'kilonova up' it is --sim-hosts that counts.")
    if not options.config_files:
        return
    from kilonova.service.mistakes import mistakes_of_one_machine

    found = mistakes_of_one_machine(conf, simulated=options.hypervisor == "sim")
    if found:
        raise Invalid(" ".join(found))


def _run(main: object) -> None:
    import uvloop

    uvloop.run(main)  # type: ignore[arg-type]  # a coroutine; spelled so that importing stays cheap


async def _up(cloud: Cloud, settings: CloudSettings, say: Say, on_ready: Callable[[CloudSettings], None]) -> None:
    loop = asyncio.get_running_loop()
    asked_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked_to_end.set)
    start = asyncio.create_task(cloud.start())
    ended = asyncio.create_task(asked_to_end.wait())
    await asyncio.wait({start, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():
        start.cancel()
        with suppress(asyncio.CancelledError):
            await start
        raise CloudError("ended before it was ready")
    await start
    on_ready(settings)
    await asked_to_end.wait()
    say("stopping (running guests stay; 'kilonova down --stop-guests' ends them too)")
    await cloud.stop()


def up_detached(options: UpOptions, *, say: Say) -> CloudSettings:
    """Start the cloud as a process of its own, and return when it is ready. Raises CloudError with its reason.

    When the cloud already runs with the same options, only waits until it is ready.
    """
    try:
        _check_files(options)
        opened = state.open_state_dir(options.state_dir)
        log = opened.path / "log/up.log"
        report = read_report(opened.path)
        offset = log.stat().st_size if log.exists() else 0
        if report is None:
            command = [sys.executable, "-m", "kilonova.cli", "up", *options.as_words()]
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
            owner = processes.identify(processes.spawn_detached(command, log, environment))
        else:
            wanted = options.hypervisor or report.hypervisor
            if report.options != options.as_dict() or wanted != report.hypervisor:
                raise CloudError(
                    f"{opened.path} already runs with other options",
                    remedy=f"'kilonova down --state-dir {opened.path}' first",
                )
            owner = report.owner
            say(f"already running (process {owner.pid})")
        _follow(opened.path, owner, log, offset, say)
    except OSError as error:
        raise from_os_error(error, options.state_dir) from error
    report = read_report(opened.path)
    hypervisor: HypervisorKind = "libvirt" if report is not None and report.hypervisor == "libvirt" else "sim"
    return make_settings(options, opened, hypervisor)


def remove_network(state_dir: Path) -> None:
    """The cloud's namespaces, and what serves in them, are gone. Raises CloudError."""
    cloud_id = state.stored_cloud_id(state_dir)
    if not netns.exists(netns_name(cloud_id)):
        return
    try:
        uplink.remove(Shell(), cloud_id)
        remove_everything(Spaces(netns_name(cloud_id)), plane_dir(state_dir))
    except HostFailure as error:
        raise CloudError(f"the cloud's network could not be removed: {error.details or error.message}") from error


def _follow(state_dir: Path, owner: processes.ProcessId | None, log: Path, offset: int, say: Say) -> None:
    """Repeat what the detached process says until it is ready. Raises CloudError with the reason it gives."""
    reason: list[str] = []
    while True:
        alive = owner is not None and processes.is_running(owner)
        report = read_report(state_dir)
        with log.open("rb") as stream:
            stream.seek(offset)
            text = stream.read()
        complete = text[: text.rfind(b"\n") + 1]
        offset += len(complete)
        lines = complete.decode(errors="replace").splitlines()
        for line in lines:
            if reason or line.startswith("error: "):
                reason.append(line.removeprefix("error: "))
            elif not line.startswith("  "):  # how to use it is the caller's to print
                say(line)
        if not alive:
            raise CloudError("\n".join(reason) or f"it ended without a reason; its log is {log}")
        if report is not None and report.owner == owner and report.ready:
            return
        time.sleep(0.05)


def run_down(state_dir: Path, *, stop_guests: bool, say: Say) -> None:
    """End what belongs to the directory. Guests and their libvirtd stay, unless `stop_guests`. Raises CloudError."""
    state_dir = state_dir.resolve()
    if not state.exists(state_dir):
        raise CloudError(f"{state_dir} is no state directory", remedy="name it with --state-dir")
    ended = []
    # `up` first: it ends its children in order, and nothing restarts them.
    for name, grace in (("up", 30.0), ("keystone", 5.0), ("glance", 5.0), ("neutron", 5.0)):
        process = processes.recall(state_dir / f"run/{name}.json")
        if process is not None:
            processes.end(process, grace=grace)
            ended.append(name)
    (state_dir / "run/status.json").unlink(missing_ok=True)
    guests = libvirtd.guest_pids(state_dir)
    if stop_guests or not guests:
        libvirtd.stop_libvirtd(state_dir, guests=stop_guests)
        remove_network(state_dir)
    if not ended and not (stop_guests and guests):
        say("nothing was running")
    elif "up" in ended:
        say("stopped")
    if guests:
        if stop_guests:
            say(f"{len(guests)} running guest(s) powered off")
        else:
            say(
                f"{len(guests)} guest(s) run on; 'kilonova up' takes them over, 'kilonova down --stop-guests' ends them"
            )
