"""What only a network can do: machines that are namespaces vanish without a word (tests/support/machines.py)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.cluster import ROOT
from tests.support.machines import lacking


@pytest.fixture(autouse=True)
def machines() -> None:
    if reason := lacking():
        pytest.skip(reason)


def run(*module: str, timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", *module],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_an_answer_is_not_awaited_of_a_database_whose_machine_lost_its_power() -> None:
    done = run("tests.cluster.vanished_worker", timeout=240)
    assert done.stdout == "7 by attempt 2\n", done.stdout + done.stderr


@pytest.mark.skipif(
    not os.environ.get("CHAOS_ACROSS_MACHINES"), reason="of `make cluster`: minutes, as test_chaos.py is on loopback"
)
@pytest.mark.timeout(1200)
def test_nothing_is_lost_doubled_or_left_over_where_the_network_itself_fails() -> None:
    seed = os.environ.get("KILONOVA_SEED", "1")
    done = run("tests.support.chaos", "--seed", seed, "--across-machines", "--short", timeout=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("controller partitioned 1", "host deaf 1", "services lost power 1", "120 servers in 120 places"):
        assert what in done.stdout, done.stdout
