"""`python -m tests.simulation.mutations NAME`: how many seeds it takes until the loss of a guard is noticed.

Ends with 0 when it was, within `--seeds`.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.workflows.mutations import MUTATIONS, Mutation, load_mutated

OWN = {
    "a lost COMMIT's answer is looked up": Mutation(
        "kilonova.engine.run", "if await self._committed(run, position):", "if False:", ""
    ),
    "a lost COMMIT's answer does not mean that it happened": Mutation(
        "kilonova.engine.run", "if await self._committed(run, position):", "if True:", ""
    ),
    "a database that is away fails nothing": Mutation("kilonova.engine.run", "if is_away(error):", "if False:", ""),
    "a deadlock's victim starts from what it started from": Mutation(
        "kilonova.engine.run", "            run.data = dict(before)\n", "", ""
    ),
    "a waiting command gets its secrets": Mutation(
        "kilonova.agent.agent", "elif other.secrets is None and work.command.secrets", "elif False", ""
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    load_mutated((MUTATIONS | OWN)[given.name])
    from tests.simulation import many

    many.prepare()
    started = time.process_time()
    for seed in range(given.first, given.first + given.seeds):
        outcome = many.run(seed)
        if outcome.problems:
            seconds = time.process_time() - started
            print(f"{given.name}: noticed by seed {seed}, after {seconds:.1f} s: {outcome.problems[0][:300]}")
            return 0
    print(f"{given.name}: NOT noticed by {given.seeds} seeds")
    return 1


if __name__ == "__main__":
    sys.exit(main())
