"""Aggregates: hosts put together by the operator. One with the key `availability_zone` makes its hosts that zone."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, ExactName, Id, Name, Uuid

aggregates = sa.Table(
    "aggregates",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("name", ExactName, nullable=False, unique=True),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="0", comment="Grows with every change"),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Column("updated_at", DateTime),
    sqlite_autoincrement=True,
)

aggregate_hosts = sa.Table(
    "aggregate_hosts",
    metadata,
    sa.Column("aggregate_id", sa.BigInteger, primary_key=True),
    sa.Column("host", Name, primary_key=True),
    sa.Index("ix_aggregate_hosts_host", "host"),
)

aggregate_metadata = sa.Table(
    "aggregate_metadata",
    metadata,
    sa.Column("aggregate_id", sa.BigInteger, primary_key=True),
    sa.Column("key", ExactName, primary_key=True),
    sa.Column("value", Name, nullable=False),
)
