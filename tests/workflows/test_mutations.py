"""Without any one of these guards the harness finds a bad end; with all of them it finds none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.workflows.mutations", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_missing_guard_is_noticed(name: str) -> None:
    done = _run(name)
    assert done.returncode == 0, f"nothing noticed that this is gone: {name}\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cases", sorted({mutation.cases for mutation in MUTATIONS.values()}))
def test_the_same_cases_end_well_with_all_guards_in_place(cases: str) -> None:
    done = _run("--unmutated", cases)
    assert done.returncode == 0, done.stdout + done.stderr
