"""Roles load nothing heavy that they do not need: memory is paid for once per process."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMON = "import sys, kilonova.cli.roles, kilonova.service.process, kilonova.service.roles, kilonova.db.engine\n"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("kilonova.api.app", ["numpy", "alembic", "sqlalchemy.orm"]),
        ("kilonova.conductor.role", ["numpy", "jsonschema_rs", "alembic", "sqlalchemy.orm", "cryptography"]),
        ("kilonova.conductor.scheduling", ["jsonschema_rs", "alembic", "sqlalchemy.orm", "cryptography", "httpx"]),
        ("kilonova.service.agents", ["numpy", "jsonschema_rs", "alembic", "sqlalchemy.dialects.mysql"]),
    ],
)
def test_a_role_is_as_small_as_what_it_needs(module: str, unwanted: list[str]) -> None:
    script = f"{COMMON}import {module}\nprint(*(name for name in {unwanted!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []
