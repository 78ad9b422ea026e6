"""Moves of servers between hosts, and resizes, which may be such moves."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, Id, Name, Uuid

migrations = sa.Table(
    "migrations",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("instance_uuid", Uuid, nullable=False),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False),
    sa.Column(
        "migration_type", sa.String(16), nullable=False, comment="migration, resize, live-migration or evacuation"
    ),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("source_compute", Name),
    sa.Column("source_node", Name),
    sa.Column("dest_compute", Name),
    sa.Column("dest_node", Name),
    sa.Column("dest_host", Name, comment="The destination's address"),
    sa.Column("old_instance_type_id", sa.BigInteger),
    sa.Column("new_instance_type_id", sa.BigInteger),
    sa.Column("hidden", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("memory_total", sa.BigInteger, comment="Bytes; of live migrations"),
    sa.Column("memory_processed", sa.BigInteger),
    sa.Column("memory_remaining", sa.BigInteger),
    sa.Column("disk_total", sa.BigInteger, comment="Bytes; of live migrations"),
    sa.Column("disk_processed", sa.BigInteger),
    sa.Column("disk_remaining", sa.BigInteger),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Column("updated_at", DateTime),
    sa.Index("ix_migrations_instance", "instance_uuid", "id"),
    sa.Index("ix_migrations_created", "created_at", "id"),
    sqlite_autoincrement=True,
)
