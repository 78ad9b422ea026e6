"""Operations and their steps, under the names that `os-instance-actions` has always had."""

from __future__ import annotations

import sqlalchemy as sa

from kilonova.db.tables.base import metadata
from kilonova.db.types import DateTime, Id, Json, LongText, Name, Uuid

OPEN = ("ready", "running")
"""States of an operation that goes on."""
QUEUED = "queued"
"""Waits for its server's slot, behind an operation that others may queue after."""

operations = sa.Table(
    "instance_actions",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("kind", sa.String(64), nullable=False, comment="Workflow"),
    sa.Column("action", sa.String(64), nullable=False, comment="Name in os-instance-actions"),
    sa.Column("server_uuid", Uuid, nullable=False),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, comment="queued ready running done failed superseded stuck"),
    sa.Column("phase", sa.String(8), nullable=False, server_default="do", comment="do or undo"),
    sa.Column("step", sa.Integer, nullable=False, server_default="0", comment="Index of the step to do or undo next"),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0", comment="Grows when steps are done anew"),
    sa.Column("owner", sa.String(64)),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0", comment="Grows with every claim; the fence"),
    sa.Column("lease_until", sa.Double, nullable=False, server_default="0", comment="Database clock, seconds"),
    sa.Column("wake_at", sa.Double, nullable=False, server_default="0", comment="Database clock, seconds"),
    sa.Column("data", Json, nullable=False, comment="Parameters and results of steps"),
    sa.Column("secrets", Json, comment="Erased at the end"),
    sa.Column("progress", Json, comment="stage and percent of the step under way"),
    sa.Column("error", sa.Text, comment="What the owner of the server is told"),
    sa.Column("traceparent", sa.String(55), comment="W3C, of the request; empty for those that are not traced"),
    sa.Column("created_at", DateTime, nullable=False),
    sa.Column("updated_at", DateTime),
    sa.Column("finished_at", DateTime),
    sa.Index("ix_instance_actions_server", "server_uuid", "id"),
    sa.Index("ix_instance_actions_open", "state", "wake_at"),
    sqlite_autoincrement=True,
)

operation_steps = sa.Table(
    "instance_actions_events",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("operation_id", sa.BigInteger, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("phase", sa.String(8), nullable=False, comment="do or undo"),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("host", Name),
    sa.Column("result", sa.String(16), comment="Success or Error; empty while under way"),
    sa.Column("details", LongText, comment="For the owner of the server"),
    sa.Column("traceback", LongText),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0", comment="The operation's, of who did it"),
    sa.Column("waits", Json, comment="What it waited for: [what, details, from, seconds], in seconds from its start"),
    sa.Column("started_at", DateTime, nullable=False),
    sa.Column("finished_at", DateTime),
    sa.Index("ix_instance_actions_events_operation", "operation_id", "id"),
    sqlite_autoincrement=True,
)
