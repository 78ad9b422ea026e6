"""`kilonova doctor` on the cloud of one machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.clients.cloud import UserCloud
from tests.support.allinone import BIN

ORDER = ("ok", "warning", "wrong")


def doctor(*options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and of each check the worst finding."""
    command = [str(BIN / "python"), "-m", "kilonova.cli", "doctor", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    checks = sorted(json.loads(done.stdout)["checks"], key=lambda each: ORDER.index(each["result"]))
    return done.returncode, {each["check"]: each for each in checks}


def test_a_cloud_that_runs_is_well(cloud: UserCloud) -> None:
    code, found = doctor("--state-dir", str(cloud.directory))
    # What other tests have left (a child that was killed, a full disk) is not looked at.
    for check in (
        "database", "database: schema", "identity", "clock: Identity",
        "endpoint: compute", "image", "networking", "networking: agents", "console: page", "console: tokens", "secrets",
    ):  # fmt: skip
        assert found[check]["result"] == "ok", found[check]
    assert any(check.startswith("cloud: ") for check in found)
    assert "broker: identities" not in found
    assert code == max(ORDER.index(each["result"]) for each in found.values())


def test_secrets_that_others_can_read(cloud: UserCloud) -> None:
    file = Path(cloud.directory) / "secrets.json"
    os.chmod(file, 0o644)
    try:
        code, found = doctor("--state-dir", str(cloud.directory))
    finally:
        os.chmod(file, 0o600)
    assert code == 2
    assert found["secrets"]["fix"] == f"chmod 600 {file}"
