from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import Id, Name

quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False, server_default="", comment="Empty: the whole project's limit"),
    sa.Column("resource", Name, nullable=False),
    sa.Column("hard_limit", sa.Integer, nullable=False, comment="-1: unlimited"),
    sa.UniqueConstraint("project_id", "user_id", "resource"),
)

quota_classes = sa.Table(
    "quota_classes",
    metadata,
    sa.Column("class_name", Name, primary_key=True),
    sa.Column("resource", Name, primary_key=True),
    sa.Column("hard_limit", sa.Integer, nullable=False, comment="-1: unlimited"),
)

quota_usages = sa.Table(
    "quota_usages",
    metadata,
    sa.Column("project_id", Name, primary_key=True),
    sa.Column("instances", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cores", sa.Integer, nullable=False, server_default="0"),
    sa.Column("ram", sa.BigInteger, nullable=False, server_default="0", comment="MiB"),
)
