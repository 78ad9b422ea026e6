"""The metadata service on a temporary SQLite file, asked as proxies and guests ask it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kilonova.bus.memory import MemoryBus
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.metadata.service import MetadataService
from kilonova.metadata.settings import MetadataSettings
from kilonova.metadata.signing import sign
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.testing.identity import PROJECT
from kilonova.testing.network import FakeNetworking
from kilonova.world import World

SECRET = "of the proxies"


class Clock(World):
    """Goes on when it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


class Asking:
    """One service. A call asks through a signing proxy; `plain` sends what it is given, from `peer`."""

    def __init__(self, service: MetadataService) -> None:
        self.service = service

    async def plain(
        self,
        path: str,
        headers: list[tuple[str, str]] | None = None,
        *,
        peer: str = "192.0.2.1",
        method: str = "GET",
        body: bytes | None = None,
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.service, client=(peer, 4000), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
            return await http.request(method, f"http://169.254.169.254{path}", headers=headers, content=body)

    async def __call__(
        self, path: str, server: str, *, project: str = PROJECT, address: str = "10.9.9.9", **more: Any
    ) -> httpx.Response:
        return await self.plain(path, signed(server, project, address), **more)


def signed(server: str, project: str = PROJECT, address: str = "10.9.9.9") -> list[tuple[str, str]]:
    """What a proxy adds."""
    return [
        ("X-Instance-ID", server),
        ("X-Tenant-ID", project),
        ("X-Instance-ID-Signature", sign(SECRET, server)),
        ("X-Forwarded-For", address),
    ]


@pytest.fixture
def network() -> FakeNetworking:
    return FakeNetworking()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def rt(tmp_path: Path, network: FakeNetworking, clock: Clock) -> AsyncIterator[Runtime]:
    db = Database(f"sqlite:///{tmp_path}/compute.sqlite", synchronous="OFF")
    await create_all(db)
    bus = MemoryBus()
    await bus.start()
    yield Runtime(
        world=clock,
        db=db,
        bus=bus,
        images=StaticImages(),
        image_token=no_token,
        settings=ComputeSettings(),
        network=network,
    )
    await bus.close()
    await db.close()


@pytest.fixture
async def asking(rt: Runtime) -> AsyncIterator[Callable[..., Asking]]:
    """Makes a service with the settings given, which are those behind signing proxies unless said otherwise."""
    async with contextlib.AsyncExitStack() as stack:

        def make(**settings: Any) -> Asking:
            service = MetadataService(rt, MetadataSettings(**{**BEHIND_PROXIES, **settings}))
            stack.push_async_callback(service.close)
            return Asking(service)

        yield make


BEHIND_PROXIES: dict[str, Any] = {"service_metadata_proxy": True, "shared_secret": SECRET}


@pytest.fixture
def ask(asking: Callable[..., Asking]) -> Asking:
    return asking()
