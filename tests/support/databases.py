"""The databases of deployments, as tests that run on each of them take one."""

from __future__ import annotations

import os
from typing import Protocol

import pytest

LONG = pytest.mark.parametrize(
    "database_server",
    [
        "mariadb",
        pytest.param(
            "postgresql",
            marks=pytest.mark.skipif(
                not os.environ.get("EVERY_DATABASE"), reason="of `make cluster`: the same, minutes long, on PostgreSQL"
            ),
        ),
    ],
    indirect=True,
)
"""Of a test that is too long for `make test` to run on each of them."""


class DatabaseServer(Protocol):
    def new_database(self) -> str:
        """Make an empty database; its URL as a configuration file states it."""

    def execute(self, sql: str, database: str = ...) -> str:
        """Run statements as the server's administrator; rows as lines, with tabs between columns."""

    def start(self) -> None:
        """Start the server and wait until it takes connections."""

    def kill(self) -> None:
        """End it as a power cut would."""


@pytest.fixture(scope="session", params=["mariadb", "postgresql"])
def database_server(request: pytest.FixtureRequest) -> DatabaseServer:
    """One of each kind in turn; take a database of your own with `new_database()`."""
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found
