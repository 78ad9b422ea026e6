"""All roles of `kilonova up` in one process: database and bus of their own, one API, one conductor, the agents."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import structlog
from oslo_config import cfg

from kilonova import config
from kilonova import log as logs
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
from kilonova.clients.key_manager import KeyManagerClient
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
from kilonova.health import STARTING, STOPPING, Answering, Health
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
from kilonova.service.agents import Machine, libvirt_driver, sim_drivers, sim_options, start_agents
from kilonova.service.deployment import log_level
from kilonova.service.http import listen, serve, serve_as
from kilonova.settings import ComputeSettings
from kilonova.world import World

log = structlog.get_logger()


class Roles:
    """Started after Identity and Image answer; `ready` tells whether a server can be created."""

    def __init__(self, settings: CloudSettings) -> None:
        self.settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._conductor: Conductor | None = None
        self._hosts: list[str] = []
        self._network: NetworkService | None = None
        self._health = Health(phase=STARTING)

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
        logs.configure(self._log, level=log_level(conf))
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
        health = self._health = Health(settings=config.health_settings(conf), phase=STARTING)
        health.add("DATABASE", db.answers)
        probes = [queues.probe(db, world)]
        await observe(stack, conf, "api", port=settings.ports.metrics, roles=ROLES, probes=probes, health=health)
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
        certificates = KeyManagerClient(lambda: identity.endpoint("key-manager"))
        stack.push_async_callback(certificates.close)
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
            certificates=certificates,
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
        idle = conf.wsgi.client_socket_timeout
        await serve(stack, Answering(metadata, health), listen(settings.bind, settings.ports.metadata), idle=idle)
        await self._start_consoles(stack, rt, proxy)
        tokens = IdentityTokens(identity, cache_time=conf.keystone_authtoken.token_cache_time)
        api = config.api_settings(conf, identity_url=settings.identity_url)
        app = create_app(rt, tokens, projects=tokens, settings=api, health=health)
        await serve(stack, app, listen(settings.bind, settings.ports.compute), idle=idle)
        health.phase = None

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
        listener = listen(settings.host or self.settings.bind, port)
        await serve_as(stack, server_config(Answering(proxy, self._health), settings), listener)

    async def _start_agents(
        self, stack: contextlib.AsyncExitStack, conf: cfg.ConfigOpts, rt: Runtime, images: ImageClient, directory: Path
    ) -> None:
        settings = self.settings
        # Simulated hosts need no locks: the state directory, which is locked, is all that they have.
        machine = Machine(
            directory=directory,
            instances=settings.data_dir / "instances",
            libvirt_uri=settings.libvirt_uri or "qemu:///system",
            netns=settings.netns,
            locks=directory if settings.hypervisor == "libvirt" else None,
        )
        if settings.hypervisor == "sim":
            names = [f"sim-{number:04d}" for number in range(1, settings.sim_hosts + 1)]
            options = sim_options(conf, settings.host)
            drivers = await sim_drivers(stack, names, options, machine, rt.world)
        else:
            drivers = {rt.settings.host: libvirt_driver(conf, rt.settings, machine)}
        await start_agents(
            stack, conf, drivers, machine=machine, bus=rt.bus, world=rt.world, images=images, settings=rt.settings
        )
        self._hosts = list(drivers)

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

    async def stop(self) -> None:
        self._health.phase = STOPPING
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
