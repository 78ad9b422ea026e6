from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, Id, Json, Name, Uuid

shadow_rows = sa.Table(
    "shadow_rows",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("table_name", Name, nullable=False),
    sa.Column("server_uuid", Uuid),
    sa.Column("deleted_at", DateTime, nullable=False, comment="The server"),
    sa.Column("archived_at", DateTime, nullable=False),
    sa.Column("document", Json, nullable=False, comment="The row"),
    sa.Index("ix_shadow_rows_deleted_at", "deleted_at"),
    sqlite_autoincrement=True,
)
