"""The roles, each with its start, which imports what only that role is made of."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oslo_config import cfg

from kilonova import config
from kilonova.health import Answering
from kilonova.runtime import Runtime
from kilonova.service import deployment
from kilonova.service.http import renew, serve, serve_as
from kilonova.service.process import Role, Started


async def start_api(started: Started) -> None:
    """The Compute API, and the metadata service where enabled_apis says so."""
    rt = await started.parts.runtime()
    for name in deployment.enabled_apis(started.conf):
        await (_serve_compute if name == "osapi_compute" else _serve_metadata)(started, rt)


async def start_metadata(started: Started) -> None:
    await _serve_metadata(started, await started.parts.runtime())


async def start_conductor(started: Started) -> None:
    from kilonova.conductor.role import Conductor
    from kilonova.engine import queues

    rt = await started.parts.runtime()
    started.probes.append(queues.probe(rt.db, rt.world))
    conductor = Conductor(
        rt,
        concurrency=started.conf.conductor.concurrency,
        lease=float(started.conf.conductor.lease),
        drain=float(started.grace),
    )
    await conductor.start()
    started.stack.push_async_callback(conductor.stop)


async def start_scheduler(started: Started) -> None:
    from kilonova.conductor.scheduling import Scheduler

    parts = started.parts
    scheduler = Scheduler(await parts.database(), await parts.bus(), parts.world, parts.settings)
    await scheduler.start()
    started.stack.push_async_callback(scheduler.stop)


async def start_consoleauth(started: Started) -> None:
    from kilonova.console.consoleauth import ConsoleAuth

    consoleauth = ConsoleAuth(await started.parts.runtime())
    await consoleauth.start()
    started.stack.push_async_callback(consoleauth.stop)


async def start_console(started: Started) -> None:
    """Faces users, and has no database: what a token opens is consoleauth's to say."""
    from kilonova.allinone.services import services_dir
    from kilonova.console.proxy.files import load
    from kilonova.console.proxy.proxy import ConsoleProxy
    from kilonova.console.proxy.server import server_config

    parts = started.parts
    settings = config.proxy_settings(started.conf)
    files = await asyncio.to_thread(load, services_dir() / "console")
    proxy = ConsoleProxy(await parts.bus(), parts.world, settings, files)
    await proxy.start()
    started.stack.push_async_callback(proxy.stop)
    listening = started.listeners["console"]
    certificate, key = listening.certificate or (None, None)
    served = server_config(Answering(proxy, parts.health), settings, ssl_certfile=certificate, ssl_keyfile=key)
    await serve_as(started.stack, served, listening.socket)
    started.reloads.append(lambda conf: renew(served, deployment.console_listener(conf).certificate))


async def start_cert(started: Started) -> None:
    """No database: the authority's folder, which only this role can read, and the broker."""
    from kilonova.cert.authority import Authority
    from kilonova.cert.role import Cert

    parts, conf = started.parts, started.conf
    folder = Path(conf.crypto.ca_path) if conf.crypto.ca_path else deployment.state_path(conf) / "CA"
    settings = parts.settings
    cert = Cert(
        await parts.bus(),
        parts.world,
        Authority(folder),
        host=settings.host,
        report_interval=settings.report_interval,
    )
    await cert.start()
    started.stack.push_async_callback(cert.stop)


async def start_network(started: Started) -> None:
    """For a Neutron with Kilonova's mechanism driver."""
    from kilonova.network.desired import plans
    from kilonova.network.link import NetworkService
    from kilonova.network.rest import NeutronRest
    from kilonova.network.role import FULL_READ

    parts = started.parts
    session = parts.session(deployment.network_account(started.conf))
    verify = deployment.network_verify(started.conf)
    rest = NeutronRest(await parts.network_endpoint(session), session.service_token, verify=verify)
    started.stack.push_async_callback(rest.close)
    service = NetworkService(
        rest,
        await parts.bus(),
        parts.world,
        compute=plans,
        hints_address=deployment.network_hints(started.conf),
        full_read=FULL_READ,
    )
    await service.start()
    started.stack.push_async_callback(service.stop)


async def start_plane(started: Started) -> None:
    """One host's bridges, tunnels, rules, DHCP and routers: root's. No database, no account."""
    from kilonova import netns
    from kilonova.agent.journal import host_lock
    from kilonova.network.plane.links import Site
    from kilonova.network.plane.metadata_proxy import MetadataTarget
    from kilonova.network.plane.plane import Plane

    parts, conf = started.parts, started.conf
    options, settings = deployment.plane(conf), parts.settings
    started.stack.enter_context(host_lock(deployment.lock_path(conf), settings.host, "plane"))
    # `ip netns` and the like know namespaces by name.
    own = options.namespace is None
    space = options.namespace or f"kn-{settings.deployment_id}"
    if own:
        await asyncio.to_thread(netns.name_ours, space)
    plane = Plane(
        await parts.bus(),
        parts.world,
        host=settings.host,
        space=space,
        directory=deployment.state_path(conf) / "plane",
        site=Site(tunnel_ip=options.tunnel_ip, uplinks=options.uplinks, shared=own),
        metadata=MetadataTarget(url=options.metadata[0], secret=options.metadata[1]) if options.metadata else None,
    )
    await plane.start()
    started.stack.push_async_callback(plane.stop)


async def start_compute(started: Started) -> None:
    """No database, no account: broker, Image and hypervisor are all that a host knows."""
    from kilonova.service.agents import Machine, make_drivers, start_agents

    parts, conf = started.parts, started.conf
    state = deployment.state_path(conf)
    machine = Machine(directory=state / "agent", instances=state / "instances", locks=deployment.lock_path(conf))
    drivers = await make_drivers(started.stack, conf, parts.settings, machine, parts.world)
    images = parts.images_for_hosts()
    await start_agents(
        started.stack,
        conf,
        drivers,
        machine=machine,
        bus=await parts.bus(),
        world=parts.world,
        images=images,
        settings=parts.settings,
        drain=float(started.grace),
    )


async def _serve_compute(started: Started, rt: Runtime) -> None:
    from kilonova.api.app import create_app
    from kilonova.clients.identity import IdentityTokens

    conf, account = started.conf, deployment.account(started.conf)
    tokens = IdentityTokens(
        started.parts.identity(),
        cache_time=conf.keystone_authtoken.token_cache_time,
        service_roles=frozenset(role.lower() for role in conf.keystone_authtoken.service_token_roles),
    )
    app = create_app(
        rt,
        tokens,
        projects=tokens,
        settings=config.api_settings(conf, identity_url=account.url),
        health=started.parts.health,
    )
    started.reloads.append(lambda _: app.policy.reload())
    listening = started.listeners["osapi_compute"]
    grace = max(1, started.grace)
    served = await serve(
        started.stack,
        app,
        listening.socket,
        idle=conf.wsgi.client_socket_timeout,
        certificate=listening.certificate,
        grace=grace,
    )
    started.reloads.append(lambda conf: renew(served, deployment.compute_listener(conf).certificate))


async def _serve_metadata(started: Started, rt: Runtime) -> None:
    from kilonova.metadata.service import MetadataService

    service = MetadataService(rt, config.metadata_settings(started.conf))
    started.stack.push_async_callback(service.close)
    listening = started.listeners["metadata"]
    served = await serve(
        started.stack,
        Answering(service, started.parts.health),
        listening.socket,
        idle=started.conf.wsgi.client_socket_timeout,
        certificate=listening.certificate,
        grace=max(1, started.grace),
    )
    started.reloads.append(lambda conf: renew(served, deployment.metadata_listener(conf).certificate))


def _api_listeners(conf: cfg.ConfigOpts) -> dict[str, deployment.Listener]:
    known = {"osapi_compute": deployment.compute_listener, "metadata": deployment.metadata_listener}
    return {name: known[name](conf) for name in deployment.enabled_apis(conf)}


_BROKER = frozenset({"BROKER"})

ROLES = {
    role.name: role
    for role in (
        Role(
            name="api",
            program="nova-api",
            start=start_api,
            workers=lambda conf: int(conf.osapi_compute_workers),
            listeners=_api_listeners,
            does_without=_BROKER,
        ),
        Role(
            name="metadata",
            program="nova-api-metadata",
            start=start_metadata,
            workers=lambda conf: int(conf.metadata_workers),
            listeners=lambda conf: {"metadata": deployment.metadata_listener(conf)},
            does_without=_BROKER,
        ),
        Role(
            name="conductor",
            program="nova-conductor",
            start=start_conductor,
            workers=lambda conf: int(conf.conductor.workers),
        ),
        Role(
            name="scheduler",
            program="nova-scheduler",
            start=start_scheduler,
            workers=lambda conf: int(conf.scheduler.workers),
        ),
        Role(
            name="consoleauth",
            program="nova-consoleauth",
            start=start_consoleauth,
        ),
        Role(
            name="console",
            program="nova-novncproxy",
            start=start_console,
            listeners=lambda conf: {"console": deployment.console_listener(conf)},
        ),
        Role(
            name="cert",
            program="nova-cert",
            start=start_cert,
        ),
        Role(
            name="network",
            program="kilonova-network",
            start=start_network,
        ),
        Role(
            name="plane",
            program="kilonova-plane",
            start=start_plane,
        ),
        Role(
            name="compute",
            program="nova-compute",
            start=start_compute,
        ),
    )
}
