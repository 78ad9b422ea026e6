from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, Id, Name, Uuid

console_tokens = sa.Table(
    "console_auth_tokens",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True, comment="SHA-256; the token is kept nowhere"),
    sa.Column("server_uuid", Uuid, nullable=False),
    sa.Column("host", Name, nullable=False, comment="Of the server when the token was issued"),
    sa.Column("console_type", sa.String(16), nullable=False, comment="novnc or serial"),
    sa.Column("address", Name, nullable=False, comment="Of the console when the token was issued"),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False, comment="Database clock, seconds"),
    sa.Column("session_hash", sa.String(64), comment="Who consumed it; empty: somebody who cannot come back"),
    sa.Column("connection", Uuid, comment="The connection that has the console, or had it last"),
    sa.Column("reconnect_until", sa.Double, comment="Database clock, seconds"),
    sa.Column("revoked", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Index("ix_console_auth_tokens_server", "server_uuid"),
    sa.Index("ix_console_auth_tokens_connection", "connection"),
    sa.Index("ix_console_auth_tokens_expires_at", "expires_at"),
    sqlite_autoincrement=True,
)
