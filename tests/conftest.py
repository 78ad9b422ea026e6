"""Servers of other makers that tests may ask for; each starts once in a session."""

from __future__ import annotations

from tests.support.databases import database_server
from tests.support.mariadb import mariadb
from tests.support.postgresql import postgresql
from tests.support.rabbit import broker

__all__ = ["broker", "database_server", "mariadb", "postgresql"]
