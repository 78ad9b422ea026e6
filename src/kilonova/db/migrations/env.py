"""Run by Alembic; the connection comes from `kilonova.db.schema`."""

from __future__ import annotations

from alembic import context

from kilonova.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
