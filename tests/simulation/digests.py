"""`python -m tests.simulation.digests SEED...`: what each run came to, in one number."""

from __future__ import annotations

import sys

from tests.simulation.many import prepare, run

if __name__ == "__main__":
    prepare()
    for seed in map(int, sys.argv[1:]):
        print(seed, run(seed).digest)
