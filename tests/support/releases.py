"""Two releases of this program: the one before, and one after this tree that has a new revision of the schema."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kilonova.db import schema
from tests.support.cluster import ROOT

COLUMN = "made_by"
"""Of servers: 'next' where the next release made them, 'before' where its migration found them, else empty."""

_TABLE = f"""

instances.append_column(sa.Column("{COLUMN}", sa.String(16), default="next"))
sa.Index("ix_instances_{COLUMN}", instances.c.{COLUMN})
"""

_MIGRATION = '''"""Who made a server"""

import sqlalchemy as sa
from alembic import op

revision = "{next}"
down_revision = "{own}"


def upgrade():
    # Where the database cannot take changes of tables back, a part of it may have been done.
    looking = sa.inspect(op.get_bind())
    if "{column}" not in [column["name"] for column in looking.get_columns("instances")]:
        op.add_column("instances", sa.Column("{column}", sa.String(16), nullable=True))
    if "ix_instances_{column}" not in [index["name"] for index in looking.get_indexes("instances")]:
        op.create_index("ix_instances_{column}", "instances", ["{column}"])
    last = op.get_bind().scalar(sa.text("SELECT MAX(id) FROM instances")) or 0
    for first in range(0, last, 10):
        part = "id > :first AND id <= :last AND {column} IS NULL"
        fill = sa.text("UPDATE instances SET {column} = 'before' WHERE " + part)
        op.get_bind().execute(fill, {{"first": first, "last": min(first + 10, last)}})
'''


def _tag() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--tags", "--abbrev=0"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def previous(directory: Path) -> Path:
    """Source of UPGRADE_FROM (a commit or tag), else of the last tag; where there is none, of this tree."""
    ref = os.environ.get("UPGRADE_FROM") or _tag()
    if ref is None:
        shutil.copytree(ROOT / "src/kilonova", directory / "src/kilonova")
        return directory / "src"
    directory.mkdir(exist_ok=True)
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", ref, "src"], check=True, capture_output=True, timeout=60
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(directory)], input=packed, check=True, timeout=60)
    return directory / "src"


def following(directory: Path) -> tuple[Path, str]:
    """Source of this tree with one more migration, and its revision: a column with an index, filled in old rows."""
    source = directory / "src"
    shutil.copytree(ROOT / "src/kilonova", source / "kilonova")
    database = source / "kilonova/db"
    with (database / "tables/instances.py").open("a") as file:
        file.write(_TABLE)
    rows = database / "servers.py"
    last = "    deleted: int\n"
    assert rows.read_text().count(last) == 1
    rows.write_text(rows.read_text().replace(last, f"{last}    {COLUMN}: str | None\n"))
    own = schema.newest()
    revision = f"{int(own) + 1:04d}"
    text = _MIGRATION.format(next=revision, own=own, column=COLUMN)
    (database / f"migrations/versions/{revision}_who_made_a_server.py").write_text(text)
    return source, revision
