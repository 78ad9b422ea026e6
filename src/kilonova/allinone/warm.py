"""`python -m kilonova.allinone.warm`: what `make setup` does once so that the first `kilonova up` is fast.

Builds each service's application once, which compiles what it imports, and keeps the migrated empty database as the
template of every new cloud's.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from kilonova.allinone import state
from kilonova.allinone.neutron import network_spec
from kilonova.allinone.services import ServiceSpec, identity_spec, image_spec, template_path
from kilonova.allinone.up import UpOptions, make_settings


def main() -> None:
    """Exit with a message when one of the services cannot be built."""
    with tempfile.TemporaryDirectory() as scratch:
        opened = state.open_state_dir(Path(scratch) / "state")
        settings = make_settings(UpOptions(state_dir=opened.path), opened, "sim")
        specs = [spec(settings, opened.secrets) for spec in (identity_spec, image_spec, network_spec)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_warm, specs))


def _warm(spec: ServiceSpec) -> None:
    # An earlier one is what would be copied.
    template_path(spec.name).unlink(missing_ok=True)
    content = json.dumps({**spec.stdin, "parent": os.getpid(), "serve": False})
    built = subprocess.run(spec.command, input=content, capture_output=True, text=True, timeout=300, check=False)
    if built.returncode != 0:
        sys.exit(f"{spec.name} cannot be built: {built.stderr[-2000:]}")
    directory, template = Path(spec.stdin["directory"]), template_path(spec.name)
    database = directory / f"{spec.name}.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
    shutil.copyfile(directory / "schema-release", template.with_suffix(".release"))
    temporary = template.with_suffix(".new")
    shutil.copyfile(database, temporary)
    temporary.rename(template)


if __name__ == "__main__":
    main()
