"""Seeds that end well, seeds that replay, guards that are missed: in processes of their own, as runs share a state."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(300)
def test_the_corpus_ends_well() -> None:
    done = _run("tests.simulation", "--corpus")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_a_seed_replays() -> None:
    """Whatever ran before it in the process, and in whatever order sets of strings come."""
    seeds = ["3", "14", "15", "92", "65", "35"]
    first = _run("tests.simulation.digests", *seeds, PYTHONHASHSEED="1").stdout.splitlines()
    second = _run("tests.simulation.digests", *reversed(seeds), PYTHONHASHSEED="2").stdout.splitlines()
    assert len(set(first)) == len(seeds)
    assert first == second[::-1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("guard", ["capacity of a host"])
def test_a_missing_guard_is_noticed_within_a_few_hundred_seeds(guard: str) -> None:
    done = _run("tests.simulation.mutations", guard)
    assert done.returncode == 0, done.stdout + done.stderr
