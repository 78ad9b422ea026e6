"""The parts that roles are made of, as nova.conf has them; each ends with the stack that it is given.

What a part is made of is imported when it is asked for: a role is as small as what it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from oslo_config import cfg

from kilonova import config
from kilonova.bus import Bus
from kilonova.bus.rabbit import RabbitBus
from kilonova.errors import Conflict, Invalid, Unavailable
from kilonova.health import Health
from kilonova.runtime import Runtime
from kilonova.service import deployment
from kilonova.service.deployment import Account
from kilonova.world import World

if TYPE_CHECKING:
    from kilonova.clients.identity import IdentityClient
    from kilonova.clients.image import ImageClient
    from kilonova.clients.key_manager import KeyManagerClient
    from kilonova.clients.network import NetworkClient
    from kilonova.db.engine import Database

log = structlog.get_logger(__name__)

_PAUSES = (1.0, 2.0, 5.0)
"""Seconds between looks for something that is not there yet; the last one repeats."""


class Parts:
    """Makes each part once, when a role asks for it."""

    def __init__(
        self, stack: contextlib.AsyncExitStack, conf: cfg.ConfigOpts, program: str, health: Health | None = None
    ) -> None:
        self.stack = stack
        self.conf = conf
        self.program = program
        self.health = health or Health()
        self.world = World()
        # The scheduler, which loads its rules anyway, checks them.
        self.settings = replace(
            config.compute_settings(conf, check_rules=False),
            console=config.console_settings(conf, proxy_url=deployment.console_url(conf)),
        )
        self._identity: IdentityClient | None = None

    async def database(self) -> Database:
        """Waits for a database that does not answer; raises Conflict for a schema of another release."""
        from kilonova.db import schema
        from kilonova.db.engine import Database

        options = deployment.database(self.conf)
        db = Database(
            options.url, pool_size=options.pool_size, max_overflow=options.max_overflow, recycle=options.recycle
        )
        self.stack.push_async_callback(db.close)
        for turn in range(1_000_000):
            try:
                found = await schema.revision(db)
                break
            except Exception as error:
                log.warning("database.not_reached", reason=str(error).splitlines()[0])
                await asyncio.sleep(_PAUSES[min(turn, len(_PAUSES) - 1)])
        if not schema.serves(found):
            raise Conflict(
                f"The database's schema is {f'of revision {found}' if found else 'not there'}; this release needs"
                f" {schema.newest()}: run 'nova-manage db sync'."
            )
        if found != schema.newest():
            log.info("database.of_the_next_release", revision=found, own=schema.newest())
        self.health.add("DATABASE", db.answers)
        return db

    async def bus(self) -> Bus:
        bus = RabbitBus(deployment.broker(self.conf, self.program))
        await bus.start()
        self.stack.push_async_callback(bus.close)

        async def connected() -> bool:
            return bus.sending.up.is_set() and bus.listening.up.is_set()

        self.health.add("BROKER", connected)
        return bus

    def identity(self) -> IdentityClient:
        """The service user's session."""
        if self._identity is None:
            self._identity = self.session(deployment.account(self.conf))
        return self._identity

    def session(self, account: Account) -> IdentityClient:
        client = session_of(account)
        self.stack.push_async_callback(client.close)
        return client

    async def images(self) -> ImageClient:
        """As the service user."""
        from kilonova.clients.image import ImageClient

        identity = self.identity()
        endpoint = deployment.image_endpoint(self.conf)
        if endpoint is None:
            endpoint = await self._in_catalog(identity, "image", deployment.account(self.conf).region)
        client = ImageClient(endpoint, identity.service_token, verify=deployment.image_verify(self.conf))
        self.stack.push_async_callback(client.close)
        return client

    def certificates(self) -> KeyManagerClient:
        from kilonova.clients.key_manager import KeyManagerClient

        identity, conf = self.identity(), self.conf

        async def endpoint() -> str | None:
            override: str | None = conf.barbican.barbican_endpoint
            return override or await identity.endpoint("key-manager", conf.barbican.barbican_region_name)

        client = KeyManagerClient(endpoint, verify=deployment.key_manager_verify(self.conf))
        self.stack.push_async_callback(client.close)
        return client

    def images_for_hosts(self) -> ImageClient:
        """For a role that has no account: tokens come with the commands. Raises Invalid."""
        from kilonova.clients.image import ImageClient

        endpoint = deployment.image_endpoint(self.conf)
        if endpoint is None:
            raise Invalid(
                "Configuration: [glance] api_servers (or host) is missing: a host has no account to find Image with."
            )
        client = ImageClient(endpoint, _no_token, verify=deployment.image_verify(self.conf))
        self.stack.push_async_callback(client.close)
        return client

    async def networking(self) -> NetworkClient | None:
        """None where [neutron] says nothing: servers have no ports then."""
        if not deployment.networking(self.conf):
            log.info("networking.none", reason="[neutron] has no url, endpoint_override or account")
            return None
        from kilonova.clients.network import NetworkClient

        account = deployment.network_account(self.conf)
        session = self.identity() if account == deployment.account(self.conf) else self.session(account)
        endpoint = await self.network_endpoint(session)
        client = NetworkClient(endpoint, session.service_token, forget=session.forget_token, verify=account.verify)
        self.stack.push_async_callback(client.close)
        return client

    async def network_endpoint(self, session: IdentityClient) -> str:
        override: str | None = self.conf.neutron.endpoint_override
        return override or await self._in_catalog(session, "network", deployment.network_account(self.conf).region)

    async def runtime(self) -> Runtime:
        """All that the API, the conductor and the like stand on."""
        db = await self.database()
        bus = await self.bus()
        return Runtime(
            world=self.world,
            db=db,
            bus=bus,
            images=await self.images(),
            image_token=self.identity().service_token,
            settings=self.settings,
            network=await self.networking(),
            certificates=self.certificates(),
        )

    async def _in_catalog(self, identity: IdentityClient, service_type: str, region: str | None) -> str:
        for turn in range(1_000_000):
            try:
                found = await identity.endpoint(service_type, region)
            except Unavailable as error:
                log.warning("identity.not_reached", reason=error.details or error.message)
                await asyncio.sleep(_PAUSES[min(turn, len(_PAUSES) - 1)])
                continue
            if found is None:
                section = {"image": "[glance] api_servers", "network": "[neutron] endpoint_override"}[service_type]
                raise Invalid(f"Identity's catalog has no service of type '{service_type}': say {section}.")
            return deployment.without_version(found)
        raise AssertionError("unreachable")


def session_of(account: Account, *, timeout: float = 20.0) -> IdentityClient:
    """An account's; whoever makes it closes it. `timeout`: seconds that Identity may take to answer."""
    from kilonova.clients.identity import IdentityClient

    return IdentityClient(
        account.url,
        username=account.username,
        password=account.password,
        project=account.project,
        user_domain=account.user_domain,
        project_domain=account.project_domain,
        timeout=timeout,
        verify=account.verify,
    )


async def _no_token() -> str | None:
    return None
