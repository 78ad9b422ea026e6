"""Servers of other makers that tests may ask for; each starts once in a session. And what runs beside what."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.databases import database_server
from tests.support.mariadb import mariadb
from tests.support.postgresql import postgresql
from tests.support.rabbit import broker

# What they assert for several tests says what it found, as if it stood in the tests.
pytest.register_assert_rewrite("tests.support.load")

__all__ = ["broker", "database_server", "mariadb", "postgresql"]

BESIDE = {"clients", "driver", "guests", "guide", "network"}
"""Directories whose tests one process of a run of several has (`make test`); another one has the rest.

What one directory's tests share they share all the same, and much of what the two do is waiting.
"""


class Lanes(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return "hosts" if nodeid.split("/")[1] in BESIDE else "cloud"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    return Lanes(config, log)
