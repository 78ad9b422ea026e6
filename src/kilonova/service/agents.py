"""The compute role's hosts: one libvirt's, or any number of simulated ones."""

from __future__ import annotations

import contextlib
import platform
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

from kilonova import config
from kilonova.agent.agent import Agent
from kilonova.agent.driver import Driver, ImageSource
from kilonova.agent.journal import Journal, host_lock
from kilonova.agent.provider_config import read_provider_config
from kilonova.agent.report import Pulse, Ticker
from kilonova.agent.sim.cells import even_cells
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.state import SimState
from kilonova.bus import Bus
from kilonova.errors import Invalid
from kilonova.numa import divided, read_reserved
from kilonova.pci import chosen, read_device, read_device_specs
from kilonova.settings import ComputeSettings
from kilonova.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where an agent is. `directory` keeps its journal; `netns`: the namespace of guests' taps, None the machine's."""

    directory: Path
    instances: Path
    libvirt_uri: str = "qemu:///system"
    netns: Path | None = None
    locks: Path | None = None
    """Where the lock of the host's one agent is; None: whoever starts it holds a lock of his own."""


async def start_agents(
    stack: contextlib.AsyncExitStack,
    conf: cfg.ConfigOpts,
    drivers: dict[str, Driver],
    *,
    machine: Machine,
    bus: Bus,
    world: World,
    images: ImageSource,
    settings: ComputeSettings,
    drain: float = 5.0,
) -> None:
    """One agent for each host. Raises Conflict when another process has one of them."""
    if machine.locks is not None:
        for name in drivers:
            stack.enter_context(host_lock(machine.locks, name))
    machine.directory.mkdir(parents=True, exist_ok=True)
    journal = Journal(machine.directory / "journal.sqlite")
    await journal.start()
    stack.push_async_callback(journal.close)
    ticker = Ticker(world)
    pulse = Pulse(bus, world) if len(drivers) > 1 else None
    for name, driver in drivers.items():
        agent = Agent(
            host=name,
            driver=driver,
            bus=bus,
            journal=journal,
            world=world,
            images=images,
            ticker=ticker,
            report_interval=settings.report_interval,
            sync_power_state_interval=conf.sync_power_state_interval,
            max_concurrent_builds=conf.max_concurrent_builds,
            image_cache_interval=conf.image_cache.manager_interval,
            image_cache_age=conf.image_cache.remove_unused_original_minimum_age_seconds,
            allocation=settings.allocation,
            additions=read_provider_config(Path(conf.compute.provider_config_location), name),
            drain_timeout=drain,
            pulse=pulse,
            console_pages=config.console_pages(conf),
        )
        await agent.start()
        stack.push_async_callback(agent.stop)


async def make_drivers(
    stack: contextlib.AsyncExitStack, conf: cfg.ConfigOpts, settings: ComputeSettings, machine: Machine, world: World
) -> dict[str, Driver]:
    """By host, what `compute_driver` names. Raises Invalid for one that is not here."""
    if not is_sim(conf):
        return {settings.host: libvirt_driver(conf, settings, machine)}
    count = conf.sim.hosts
    if count > 1 and conf.host_identity == "required":
        raise Invalid("Configuration: host_identity = required: one process has one host: [sim] hosts = 1.")
    names = [settings.host] if count == 1 else [f"{settings.host}-{number:03d}" for number in range(1, count + 1)]
    return await sim_drivers(stack, names, sim_options(conf, conf.my_ip), machine, world)


def is_sim(conf: cfg.ConfigOpts) -> bool:
    """Raises Invalid for a driver that is not here."""
    kind = conf.compute_driver.removeprefix("nova.virt.")
    if kind not in ("sim", "libvirt.LibvirtDriver", "libvirt.driver.LibvirtDriver", "libvirt"):
        raise Invalid(
            f"Configuration: compute_driver = {conf.compute_driver}: known are libvirt.LibvirtDriver and sim."
        )
    return bool(kind == "sim")


def sim_options(conf: cfg.ConfigOpts, host_ip: str) -> SimOptions:
    """What simulated hosts are like, by [sim]. Raises Invalid."""
    cells = even_cells(
        conf.sim.numa_cells,
        conf.sim.vcpus,
        conf.sim.memory_mb,
        threads=conf.sim.threads,
        pages=conf.sim.huge_pages,
    )
    return SimOptions(
        vcpus=conf.sim.vcpus,
        cells=divided(cells, *config.cpu_sets(conf)),
        memory_mb=conf.sim.memory_mb,
        local_gb=conf.sim.local_gb,
        durations=_durations(conf.sim.durations),
        pci_devices=chosen(map(read_device, conf.sim.pci_devices), read_device_specs(conf.pci.device_spec)),
        download_images=conf.sim.download_images,
        host_ip=host_ip,
    )


def _durations(texts: dict[str, str]) -> dict[str, float]:
    try:
        return {verb: float(seconds) for verb, seconds in texts.items()}
    except ValueError as error:
        raise Invalid(f"Configuration: [sim] durations: {error}; running:0.5,disks:0.2 is accepted.") from error


async def sim_drivers(
    stack: contextlib.AsyncExitStack, names: list[str], options: SimOptions, machine: Machine, world: World
) -> dict[str, Driver]:
    """Simulated hosts, on one file."""
    machine.directory.mkdir(parents=True, exist_ok=True)
    state = SimState(machine.directory / "sim.sqlite")
    await state.start()
    stack.push_async_callback(state.close)
    return {name: SimDriver(options, world, host=name, state=state) for name in names}


def libvirt_driver(conf: cfg.ConfigOpts, settings: ComputeSettings, machine: Machine) -> Driver:
    """The libvirt driver of this machine; imported only here, since the binding is optional."""
    from kilonova.agent.libvirt.driver import LibvirtDriver
    from kilonova.agent.libvirt.options import LibvirtOptions

    shared, dedicated = config.cpu_sets(conf)
    return LibvirtDriver(
        LibvirtOptions(
            state_path=Path(conf.instances_path) if conf.instances_path else machine.instances,
            deployment_id=settings.deployment_id,
            uri=conf.libvirt.connection_uri or machine.libvirt_uri,
            host_name=settings.host,
            host_ip=conf.my_ip,
            virt_type=conf.libvirt.virt_type,
            cpu_mode=conf.libvirt.cpu_mode,
            cpu_models=tuple(conf.libvirt.cpu_models),
            machine_type=machine_types(conf).get(platform.machine()),
            vnc_enabled=conf.vnc.enabled,
            vnc_listen=conf.vnc.server_listen,
            vnc_proxyclient_address=conf.vnc.server_proxyclient_address,
            serial_proxyclient_address=conf.serial_console.proxyclient_address,
            tb_cache_mib=conf.libvirt.tb_cache_size,
            mem_stats_period=conf.libvirt.mem_stats_period_seconds,
            num_pcie_ports=conf.libvirt.num_pcie_ports,
            cpu_shared_set=shared,
            cpu_dedicated_set=dedicated,
            reserved_huge_pages=read_reserved(conf.reserved_huge_pages),
            pci_specs=read_device_specs(conf.pci.device_spec),
            force_raw_images=conf.force_raw_images,
            reserved_host_disk_mb=conf.reserved_host_disk_mb,
            dhcp_domain=settings.dhcp_domain,
            metadata=config.metadata_settings(conf),
            netns=machine.netns,
        )
    )


def machine_types(conf: cfg.ConfigOpts) -> dict[str, str]:
    """By architecture. Raises Invalid."""
    found = {}
    for entry in conf.libvirt.hw_machine_type:
        architecture, equals, kind = entry.partition("=")
        if not (architecture and equals and kind):
            raise Invalid(f"Configuration: [libvirt] hw_machine_type: '{entry}': x86_64=q35 is accepted.")
        found[architecture] = kind
    return found
