"""One Neutron for all tests of this directory; planes of two hosts for each that asks."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kilonova.bus.memory import MemoryBus
from kilonova.network.plane.metadata_proxy import MetadataTarget
from tests.support.neutron import Neutron
from tests.support.planes import Lan, TwoHosts, metadata_service, until


@pytest.fixture(scope="session")
def neutron(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neutron]:
    running = Neutron(tmp_path_factory.mktemp("neutron") / "cloud")
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[TwoHosts]:
    bus = MemoryBus()
    await bus.start()
    service = await metadata_service()
    made = TwoHosts(
        prefix=f"kt{secrets.token_hex(3)}",
        directory=tmp_path,
        bus=bus,
        metadata=MetadataTarget(url=service.url, secret="s3cret"),
        told=service.documents,
    )
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await service.close()


@pytest.fixture
async def lan(two: TwoHosts) -> Lan:
    world = two.documents
    network = world.network("lan", 7)
    subnet = world.subnet("lan", network, "10.0.0.0/24")
    group = world.group("g", {"direction": "egress"})
    ports = {
        name: world.port(name, network, host, (subnet, address), security_groups=[group["id"]])
        for name, host, address in (("a", "h1", "10.0.0.5"), ("b", "h2", "10.0.0.6"))
    }
    world.dhcp_port(network, "h1", (subnet, "10.0.0.2"))
    await two.send()
    found = Lan(
        two, network, subnet, group, two.guest("h1", ports["a"], "10.0.0.5"), two.guest("h2", ports["b"], "10.0.0.6")
    )
    await until(lambda: found.wired("a", "b"))
    return found
