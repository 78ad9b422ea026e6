"""The API without the other roles, on a temporary SQLite file.

With API_DATABASE=mariadb or postgresql the same tests run on that, as `make cluster` has them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from kilonova.api.app import create_app
from kilonova.api.policy import Policy
from kilonova.bus.memory import MemoryBus
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.runtime import Runtime
from kilonova.settings import ComputeSettings
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages, no_token
from kilonova.testing.identity import StaticTokens
from kilonova.world import World
from tests.support.databases import DatabaseServer

_POLICY = Policy()
_SERVER = os.environ.get("API_DATABASE")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if _SERVER is None:
        yield f"sqlite:///{tmp_path}/compute.sqlite"
        return
    server: DatabaseServer = request.getfixturevalue(_SERVER)
    url = server.new_database()
    yield url
    server.execute(f"DROP DATABASE {url.rpartition('/')[2]}")


@pytest.fixture
async def runtime(database_url: str) -> AsyncIterator[Runtime]:
    db = Database(database_url, synchronous="OFF")
    await create_all(db)
    bus = MemoryBus()
    await bus.start()
    yield Runtime(
        world=World(), db=db, bus=bus, images=StaticImages(), image_token=no_token, settings=ComputeSettings()
    )
    await bus.close()
    await db.close()


@pytest.fixture
async def api(runtime: Runtime) -> AsyncIterator[Client]:
    app = create_app(runtime, StaticTokens(), policy=_POLICY)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://compute.test:8774") as http:
        yield Client(http, runtime)
