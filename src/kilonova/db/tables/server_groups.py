"""Server groups. Its members are the servers whose `server_group` names it, so that nothing has to be kept in step."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, Id, Json, Name, Uuid

instance_groups = sa.Table(
    "instance_groups",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False),
    sa.Column("name", Name, nullable=False),
    sa.Column(
        "policy", sa.String(32), nullable=False, comment="affinity, anti-affinity, soft-affinity, soft-anti-affinity"
    ),
    sa.Column("rules", Json, nullable=False, comment="max_server_per_host, with anti-affinity only"),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Column("updated_at", DateTime),
    sa.Index("ix_instance_groups_project", "project_id", "id"),
    sqlite_autoincrement=True,
)

instance_group_hosts = sa.Table(
    "instance_group_hosts",
    metadata,
    sa.Column("group_id", sa.BigInteger, primary_key=True),
    sa.Column("host", Name, primary_key=True),
    sa.Column("servers", sa.Integer, nullable=False, server_default="0", comment="Members with a claim on the host"),
)
