"""`python -m tests.simulation --seeds 10000`: many runs, side by side; `--seed 7`: one of them, told as it went."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.many import replay, run_all

CORPUS = Path(__file__).with_name("corpus.txt")


def corpus() -> list[int]:
    lines = (line.split("#")[0].strip() for line in CORPUS.read_text().splitlines())
    return [int(line) for line in lines if line]


def _many(seeds: Sequence[int], jobs: int, most_bad: int) -> int:
    started = time.monotonic()
    faults: Counter[str] = Counter()
    bad = done = requests = commits = 0
    simulated = 0.0
    for outcome in run_all(seeds, jobs):
        done += 1
        faults.update(outcome.faults)
        requests += outcome.requests
        commits += outcome.commits
        simulated += outcome.simulated
        if outcome.problems:
            bad += 1
            print(f"seed {outcome.seed} comes to a bad end:", *outcome.problems, sep="\n    ", flush=True)
            if bad >= most_bad:
                break
        if done % 1000 == 0:
            print(f"{done} seeds, {bad} bad, {done / (time.monotonic() - started) * 60:.0f} a minute", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(
        f"{done} seeds from {seeds[0]}: {bad} bad; {requests} requests, {commits} commits, {simulated / 3600:.0f} hours"
        f" simulated in {minutes:.1f} minutes ({done / minutes:.0f} seeds a minute)"
    )
    print("faults:", ", ".join(f"{count} x {kind}" for kind, count in faults.most_common()))
    return int(bad > 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and tell what happened")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--most-bad", type=int, default=20, help="stop after so many bad ends")
    parser.add_argument("--corpus", action="store_true", help=f"the seeds of {CORPUS.name}")
    given = parser.parse_args()
    if given.seed is None:
        seeds = corpus() if given.corpus else range(given.first, given.first + given.seeds)
        return _many(seeds, given.jobs, given.most_bad)
    outcome = replay(given.seed)
    print(*outcome.lines, sep="\n")
    print(f"seed {outcome.seed}, digest {outcome.digest}, {outcome.simulated:.1f} s, {outcome.turns} turns")
    print(*(outcome.problems or ["all is well"]), sep="\n")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    sys.exit(main())
