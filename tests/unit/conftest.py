"""A cloud in this process with Networking in memory, for those who ask for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from kilonova.api.app import create_app
from kilonova.settings import ComputeSettings
from kilonova.testing.api import Client
from kilonova.testing.cloud import TestCloud, make_cloud
from kilonova.testing.identity import StaticTokens
from kilonova.testing.network import FakeNetworking
from tests.support.port_servers import IMAGE


@pytest.fixture
def network() -> FakeNetworking:
    return FakeNetworking()


@pytest.fixture
async def cloud(tmp_path: Path, network: FakeNetworking) -> AsyncIterator[TestCloud]:
    settings = ComputeSettings(vif_plugging_timeout=5.0)
    async with make_cloud(tmp_path, network=network, settings=settings, synchronous="OFF") as made:
        made.images.add(IMAGE)
        yield made


@pytest.fixture
async def api(cloud: TestCloud) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(app=create_app(cloud.rt, StaticTokens()))
    async with httpx.AsyncClient(transport=transport, base_url="http://compute.test") as http:
        client = Client(http, cloud.rt)
        body = {"flavor": {"name": "m1", "id": "1", "ram": 512, "vcpus": 1, "disk": 1}}
        assert (await client("POST", "/flavors", body)).status_code == 200
        yield client
