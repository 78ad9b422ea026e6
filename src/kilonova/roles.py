"""All roles of `kilonova up` in one process: database and bus of their own, one API, one conductor, the agents."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from oslo_config import cfg

from kilonova import config
from kilonova import log as logs
from kilonova.agent.agent import Agent
from kilonova.agent.driver import Driver
from kilonova.agent.journal import Journal, host_lock
from kilonova.agent.provider_config import read_provider_config
from kilonova.agent.report import Ticker
from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.state import SimState
from kilonova.allinone import external, uplink
from kilonova.allinone.neutron import hints_address
from kilonova.allinone.services import services_dir
from kilonova.allinone.settings import CloudSettings, host_in_url
from kilonova.api.app import create_app
from kilonova.bus.memory import MemoryBus
from kilonova.cert.authority import Authority
from kilonova.cert.role import Cert
from kilonova.clients.identity import IdentityClient, IdentityTokens
from kilonova.clients.image import ImageClient
from kilonova.clients.network import NetworkClient
from kilonova.conductor.role import Conductor
from kilonova.conductor.scheduling import Scheduler
from kilonova.console.consoleauth import ConsoleAuth
from kilonova.console.proxy.files import load
from kilonova.console.proxy.proxy import ConsoleProxy
from kilonova.console.proxy.server import server_config
from kilonova.console.settings import ProxySettings
from kilonova.db import schema
from kilonova.db.engine import Database
from kilonova.engine import queues
from kilonova.metadata.service import MetadataService
from kilonova.metadata.settings import MetadataSettings
from kilonova.metrics import ROLES
from kilonova.network.desired import plans
from kilonova.network.link import NetworkService
from kilonova.network.outline import outlines
from kilonova.network.plane.links import Site
from kilonova.network.plane.metadata_proxy import MetadataTarget
from kilonova.network.plane.plane import Plane
from kilonova.network.plane.shell import Shell
from kilonova.network.rest import NeutronRest
from kilonova.network.role import FULL_READ
from kilonova.network.sim_plane import SimPlanes
from kilonova.observe import observe
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.world import World

Application = Callable[[Any, Any, Any], Awaitable[None]]
"""ASGI's."""

log = structlog.get_logger()


class Roles:
    """Started after Identity and Image answer; `ready` tells whether a server can be created."""

    def __init__(self, settings: CloudSettings) -> None:
        self.settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._conductor: Conductor | None = None
        self._hosts: list[str] = []
        self._network: NetworkService | None = None

    async def start(self) -> None:
        """Raises Invalid for a bad configuration, Conflict for a newer database."""
        settings = self.settings
        conf = config.load(settings.config_files)
        compute = config.compute_settings(conf, deployment_id=settings.cloud_id)
        proxy = config.proxy_settings(conf)
        pages = f"http://{host_in_url(proxy.host or settings.host)}:{proxy.port or settings.ports.console}"
        compute = replace(compute, console=config.console_settings(conf, proxy_url=pages))
        settings.log_dir.mkdir(parents=True, exist_ok=True)
        self._log = (settings.log_dir / "kilonova.log").open("a", buffering=1)
        logs.configure(self._log, debug=conf.debug)
        directory = settings.data_dir
        directory.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack, conf, compute, proxy, directory)
            self._stack = stack.pop_all()

    async def _start(
        self,
        stack: contextlib.AsyncExitStack,
        conf: cfg.ConfigOpts,
        compute: ComputeSettings,
        proxy: ProxySettings,
        directory: Path,
    ) -> None:
        settings = self.settings
        world = World()
        db = Database(f"sqlite:///{directory}/compute.sqlite")
        stack.push_async_callback(db.close)
        await schema.migrate(db)
        await observe(stack, conf, "api", port=settings.ports.metrics, roles=ROLES, probes=[queues.probe(db, world)])
        bus = MemoryBus()
        await bus.start()
        stack.push_async_callback(bus.close)
        identity = IdentityClient(
            settings.identity_url,
            username=settings.service_username,
            password=settings.service_password,
            project=settings.service_project,
        )
        stack.push_async_callback(identity.close)
        images = ImageClient(settings.image_url, identity.service_token)
        stack.push_async_callback(images.close)
        network: NetworkClient | None = None
        if settings.networking == "neutron":
            network = NetworkClient(settings.network_url, identity.service_token, forget=identity.forget_token)
            stack.push_async_callback(network.close)
        rt = Runtime(
            world=world,
            db=db,
            bus=bus,
            images=images,
            image_token=identity.service_token,
            settings=compute,
            network=network,
        )
        scheduler = Scheduler(db, bus, world, compute)
        await scheduler.start()
        stack.push_async_callback(scheduler.stop)
        self._conductor = Conductor(rt)
        # The state directory is locked by this process, so whoever held leases before is gone.
        await self._conductor.start(alone=True)
        stack.push_async_callback(self._conductor.stop)
        await self._start_agents(stack, conf, rt, images, directory)
        if settings.networking == "neutron":
            await self._start_network(stack, rt)
        cert = Cert(bus, world, Authority(directory / "CA"), host=compute.host, report_interval=compute.report_interval)
        await cert.start()
        stack.push_async_callback(cert.stop)
        metadata = MetadataService(rt, self._metadata_settings(conf))
        stack.push_async_callback(metadata.close)
        await self._serve(stack, metadata, settings.ports.metadata)
        await self._start_consoles(stack, rt, proxy)
        tokens = IdentityTokens(identity, cache_time=conf.keystone_authtoken.token_cache_time)
        api = config.api_settings(conf, identity_url=settings.identity_url)
        await self._serve(stack, create_app(rt, tokens, projects=tokens, settings=api), settings.ports.compute)

    def _metadata_settings(self, conf: cfg.ConfigOpts) -> MetadataSettings:
        # Whatever the file says: those who ask are our own proxies.
        secret = self.settings.metadata_secret
        return replace(config.metadata_settings(conf), service_metadata_proxy=True, shared_secret=secret)

    async def _start_consoles(self, stack: contextlib.AsyncExitStack, rt: Runtime, settings: ProxySettings) -> None:
        auth = ConsoleAuth(rt)
        await auth.start()
        stack.push_async_callback(auth.stop)
        files = await asyncio.to_thread(load, services_dir() / "console")
        proxy = ConsoleProxy(rt.bus, rt.world, settings, files)
        await proxy.start()
        stack.push_async_callback(proxy.stop)
        port = settings.port or self.settings.ports.console
        await self._listen(stack, server_config(proxy, settings), port, settings.host or self.settings.bind)

    async def _start_agents(
        self, stack: contextlib.AsyncExitStack, conf: cfg.ConfigOpts, rt: Runtime, images: ImageClient, directory: Path
    ) -> None:
        journal = Journal(directory / "journal.sqlite")
        await journal.start()
        stack.push_async_callback(journal.close)
        ticker = Ticker(rt.world)
        drivers: dict[str, Driver] = {}
        if self.settings.hypervisor == "sim":
            state = SimState(directory / "sim.sqlite")
            await state.start()
            stack.push_async_callback(state.close)
            for number in range(1, self.settings.sim_hosts + 1):
                name = f"sim-{number:04d}"
                options = SimOptions(download_images=True, host_ip=self.settings.host)
                drivers[name] = SimDriver(options, rt.world, host=name, state=state)
        else:
            drivers[rt.settings.host] = libvirt_driver(self.settings, conf, rt.settings)
            # Simulated hosts need none: the state directory, which is locked, is all that they have.
            stack.enter_context(host_lock(directory, rt.settings.host))
        for name, driver in drivers.items():
            agent = Agent(
                host=name,
                driver=driver,
                bus=rt.bus,
                journal=journal,
                world=rt.world,
                images=images,
                ticker=ticker,
                report_interval=rt.settings.report_interval,
                sync_power_state_interval=conf.sync_power_state_interval,
                max_concurrent_builds=conf.max_concurrent_builds,
                image_cache_interval=conf.image_cache.manager_interval,
                image_cache_age=conf.image_cache.remove_unused_original_minimum_age_seconds,
                allocation=rt.settings.allocation,
                additions=read_provider_config(Path(conf.compute.provider_config_location), name),
            )
            await agent.start()
            stack.push_async_callback(agent.stop)
            self._hosts.append(name)

    async def _start_network(self, stack: contextlib.AsyncExitStack, rt: Runtime) -> None:
        settings = self.settings
        identity = IdentityClient(
            settings.identity_url,
            username="neutron",
            password=settings.network_password,
            project=settings.service_project,
        )
        stack.push_async_callback(identity.close)
        rest = NeutronRest(settings.network_url, identity.service_token)
        stack.push_async_callback(rest.close)
        await external.ensure_content(rest, external.external_range(settings.cloud_id))
        self._network = NetworkService(
            rest,
            rt.bus,
            rt.world,
            compute=outlines if settings.netns is None else plans,
            hints_address=hints_address(settings),
            full_read=FULL_READ,
        )
        await self._network.start()
        stack.push_async_callback(self._network.stop)
        planes = SimPlanes(rt.bus, rt.world, self._hosts) if settings.netns is None else self._plane(rt, settings.netns)
        await planes.start()
        stack.push_async_callback(planes.stop)

    def _plane(self, rt: Runtime, space: Path) -> Plane:
        settings = self.settings
        metadata = f"http://{host_in_url(settings.host)}:{settings.ports.metadata}"
        return Plane(
            rt.bus,
            rt.world,
            host=self._hosts[0],
            space=space.name,
            directory=settings.plane_dir,
            site=Site(uplinks={external.NAME: uplink.DEVICE}),
            metadata=MetadataTarget(url=metadata, secret=settings.metadata_secret),
            prepare=lambda: uplink.ensure(
                Shell(), settings.cloud_id, space.name, external.external_range(settings.cloud_id)
            ),
        )

    async def _serve(self, stack: contextlib.AsyncExitStack, app: Application, port: int) -> None:
        """Answer HTTP at one of the cloud's ports until the stack ends."""
        server = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=True,
            timeout_graceful_shutdown=5,
        )
        await self._listen(stack, server, port, self.settings.bind)

    async def _listen(self, stack: contextlib.AsyncExitStack, served: uvicorn.Config, port: int, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family, backlog=1024, reuse_port=False)
        server = uvicorn.Server(served)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment] # signals are `up`'s
        task = asyncio.create_task(server.serve(sockets=[listener]))

        async def stop() -> None:
            server.should_exit = True
            await task

        stack.push_async_callback(stop)
        while not server.started:
            if task.done():
                await task
                raise RuntimeError(f"the server at port {port} ended at once")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def ready(self) -> str | None:
        """None when a server can be created, else the reason."""
        if self._conductor is None:
            return "the conductor has not started"
        for host in self._hosts[:1]:
            if not await self._conductor.hosts.is_up(host):
                return f"host '{host}' has not reported yet"
        if self._network is not None:
            return self._network.role.ready()
        return None


def libvirt_driver(settings: CloudSettings, conf: cfg.ConfigOpts, compute: ComputeSettings) -> Driver:
    """The libvirt driver of this machine; imported only here, since the binding is optional."""
    from kilonova.agent.libvirt.driver import LibvirtDriver
    from kilonova.agent.libvirt.options import LibvirtOptions

    machine_types = dict(entry.split("=", 1) for entry in conf.libvirt.hw_machine_type)
    return LibvirtDriver(
        LibvirtOptions(
            state_path=Path(conf.instances_path) if conf.instances_path else settings.data_dir / "instances",
            deployment_id=compute.deployment_id,
            uri=conf.libvirt.connection_uri or settings.libvirt_uri or "qemu:///system",
            host_name=compute.host,
            host_ip=conf.my_ip,
            virt_type=conf.libvirt.virt_type,
            cpu_mode=conf.libvirt.cpu_mode,
            cpu_models=tuple(conf.libvirt.cpu_models),
            machine_type=machine_types.get(platform.machine()),
            vnc_enabled=conf.vnc.enabled,
            vnc_listen=conf.vnc.server_listen,
            vnc_proxyclient_address=conf.vnc.server_proxyclient_address,
            serial_proxyclient_address=conf.serial_console.proxyclient_address,
            tb_cache_mib=conf.libvirt.tb_cache_size,
            mem_stats_period=conf.libvirt.mem_stats_period_seconds,
            num_pcie_ports=conf.libvirt.num_pcie_ports,
            force_raw_images=conf.force_raw_images,
            reserved_host_disk_mb=conf.reserved_host_disk_mb,
            dhcp_domain=compute.dhcp_domain,
            metadata=config.metadata_settings(conf),
            netns=settings.netns,
        )
    )
