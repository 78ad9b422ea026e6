"""The schema's making and changing, by the migrations in `migrations/versions`.

Alembic is imported where it is used: a process that finds the newest schema, as nearly all
do, starts a quarter of a second earlier without it, and 11 MiB smaller.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kilonova.db.engine import Database, Tx
from kilonova.db.tables import metadata
from kilonova.errors import Conflict

if TYPE_CHECKING:
    from alembic.config import Config

_HERE = Path(__file__).parent / "migrations"


def config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration, without a file of its own."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(_HERE))
    made.attributes["connection"] = connection
    return made


def newest() -> str:
    """The revision that this release works with: migrations' files are named by their revisions, which count up."""
    return max(path.name.split("_")[0] for path in (_HERE / "versions").glob("[0-9]*.py"))


def serves(found: str | None) -> bool:
    """Whether this release's roles can work on a schema of that revision.

    On their own, and on the next one: a migration only adds what the release before it need not know of, so that roles
    of both run side by side while the old ones are replaced.
    """
    return found is not None and found.isdecimal() and int(found) - int(newest()) in (0, 1)


async def migrate(db: Database) -> None:
    """Bring the schema to this release's revision; a no-op when it is there.

    Raises Conflict when the database was made by a newer release, or lacks what its revision should have.
    """

    async def work(tx: Tx) -> None:
        await tx.run_sync(_migrate)
        await tx.run_sync(check)

    await db.write(work)


async def revision(db: Database) -> str | None:
    """The schema's revision; None for an empty database."""

    async def work(tx: Tx) -> str | None:
        return await tx.run_sync(stored_revision)

    return await db.read(work)


def stored_revision(connection: sa.Connection) -> str | None:
    """As `revision`, on a connection."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def _migrate(connection: sa.Connection) -> None:
    current = stored_revision(connection)
    if current == newest():
        return
    from alembic import command
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    if current is not None and current not in known:
        raise Conflict(
            f"The database's schema is of revision {current}, which this release does not know: "
            "a newer Kilonova made it. Use that release, or restore a backup made before it."
        )
    command.upgrade(config(connection), "head")


def check(connection: sa.Connection) -> None:
    """Every table has the columns that this release reads; else each request would fail on its own.

    Raises Conflict.
    """
    for table in metadata.sorted_tables:
        try:
            connection.execute(sa.select(table).where(sa.false()))
        except sa.exc.DBAPIError as error:
            raise Conflict(
                f"The database is of this release's revision {newest()} but lacks parts of it ({error.orig}): "
                "an unfinished release made it. Start with a new database, or restore a backup."
            ) from error


async def create_all(db: Database) -> None:
    """Make all tables at once, without migrations: for tests and benchmarks."""

    async def work(tx: Tx) -> None:
        await tx.run_sync(metadata.create_all)

    await db.write(work)


def differences(connection: sa.Connection) -> list[Any]:
    """What the migrated schema lacks of the tables in code; for the test that keeps both the same."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": False})
    return [entry for entry in compare_metadata(context, metadata) if not re.search("alembic_version", str(entry))]
