"""Guards taken away on MariaDB and RabbitMQ: `python -m tests.cluster.mutations [NAME ...]`.

The test that a guard is for has to fail without it, in the test's process and in those that it starts. What decides is
a race between processes, mostly, so a guard gets a few runs to be missed in. Ends with 0 when every one was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.workflows.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
RUNS = 3


@dataclass(frozen=True)
class Guard:
    mutation: Mutation
    test: str
    file: str = "test_exact"


GUARDS = {
    "capacity of a host": Guard(MUTATIONS["capacity of a host"], "more_demand_than_capacity"),
    "quota": Guard(MUTATIONS["quota"], "a_quota_of_n_admits"),
    "who asks for several has the project to himself": Guard(
        Mutation(
            "kilonova.compute.quota_usage",
            "    await quota_rows.lock(tx, project_id)\n    used = [(limit.project,",
            "    used = [(limit.project,",
            "",
        ),
        "of_many_at_once_as_many_are_made",
    ),
    "power states: generation": Guard(
        MUTATIONS["power states: generation"], "an_operation_that_came_and_went", "test_power_states_on_databases"
    ),
    "anti-affinity": Guard(MUTATIONS["anti-affinity"], "strict_anti_affinity"),
    "affinity": Guard(MUTATIONS["affinity"], "affinity_stays_on_one_host"),
    "what was given away is deducted": Guard(
        Mutation("kilonova.scheduler.pick", "    picture.take(order[0], request, now)\n", "    pass\n", ""),
        "a_burst_spreads",
    ),
}
"""By name what is removed, and the test that is to miss it."""

_MUTATED = """
import os, sys
from tests.cluster.mutations import GUARDS
from tests.workflows.mutations import load_mutated
load_mutated(GUARDS[os.environ["MUTATION"]].mutation)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def missed(name: str) -> str | None:
    """How the test failed, or None when it did not."""
    file = f"tests/cluster/{GUARDS[name].file}.py"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _MUTATED,
            "-q",
            "-x",
            "-p",
            "no:randomly",
            file,
            "-k",
            f"{GUARDS[name].test} and mariadb",
        ],
        cwd=ROOT,
        env={**os.environ, "MUTATION": name},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == 0:
        return None
    why = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
    if done.returncode != 1 or not why or "AssertionError" not in done.stdout:
        raise SystemExit(f"{name}: the test did not come to its question\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return why[0][1:].strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(GUARDS)}")
    unnoticed = 0
    for name in parser.parse_args().names or GUARDS:
        for number in range(1, RUNS + 1):
            if (how := missed(name)) is not None:
                print(f"{name}: missed in run {number}: {how}", flush=True)
                break
        else:
            unnoticed += 1
            print(f"{name}: NOT missed in {RUNS} runs", flush=True)
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
