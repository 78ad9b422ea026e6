"""Guards taken away on MariaDB and RabbitMQ: `python -m tests.cluster.mutations [NAME ...]`.

The test that a guard is for has to fail without it, in the test's process and in those that it starts. What decides is
a race between processes, mostly, so a guard gets a few runs to be missed in. Ends with 0 when every one was.
"""

from __future__ import annotations

import argparse
import os
import re
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
    "CPUs of one's own: what others have is looked at under the host's lock": Guard(
        Mutation(
            "kilonova.compute.claims",
            "    if await claim(tx, needs, node_id, generation):\n"
            "        placed = await numa_cells.place(tx, needs.numa, node_id) if needs.numa is not None else ()\n",
            "    placed = await numa_cells.place(tx, needs.numa, node_id) if needs.numa is not None else ()\n"
            "    if await claim(tx, needs, node_id, generation):\n",
            "",
        ),
        "gives_every_cpu_and_every_page_once",
        "test_numa_on_mariadb",
    ),
    "PCI devices: only free ones": Guard(
        Mutation("kilonova.db.pci_devices", ", _c.server_uuid.is_(None))\n        rows", ")\n        rows", ""),
        "gives_each_device_once",
        "test_numa_on_mariadb",
    ),
    "who refuses looks anew": Guard(
        Mutation(
            "kilonova.conductor.scheduling", "(True,) if message.fresh else (False, True)", "(message.fresh,)", ""
        ),
        "is_nobodys_refusal",
    ),
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
        env={**os.environ, "MUTATION": name, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == 0:
        return None
    # Of the test itself: what its fixtures come to afterwards is another matter.
    why = re.search(r"^FAILED \S+ - ((?:AssertionError|assert).*)$", done.stdout, re.M)
    if done.returncode != 1 or why is None:
        raise SystemExit(f"{name}: the test did not come to its question\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return why[1]


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
