"""`python -m tests.support.chaos --seed N [--across-machines] [--short | --middle] [--servers N] [--minutes N]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack
from functools import partial

from tests.support.chaos.faults import Faults, FaultsOfMachines
from tests.support.chaos.plan import Plan, across, full, middle, short
from tests.support.chaos.run import ON_MACHINES, chaos, stage
from tests.support.cluster import durable_servers
from tests.support.machines import go_inside, lacking, services_of, site


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", type=int, help="1000; across machines 200")
    parser.add_argument("--minutes", type=float, help="of faults: 6; --middle 2")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_true", help="60 servers, 40 s, time-outs to match; in `make test`")
    form.add_argument("--middle", action="store_true", help="shorter time-outs")
    parser.add_argument(
        "--across-machines", action="store_true", help="each a network namespace; the network itself fails (root)"
    )
    chosen = parser.parse_args()
    if chosen.across_machines:
        if reason := lacking():
            parser.error(reason)
        go_inside("tests.support.chaos")
    servers = chosen.servers or (200 if chosen.across_machines else 1000)
    if chosen.short:
        plan = short(chosen.seed)
    elif chosen.middle:
        plan = middle(chosen.seed, servers, chosen.minutes or 2)
    else:
        plan = full(chosen.seed, servers, chosen.minutes or 6)
    sys.exit(run(across(plan) if chosen.across_machines else plan))


def run(plan: Plan) -> int:
    """The exit code."""
    with ExitStack() as stack:
        where = stack.enter_context(site(ON_MACHINES["api"], ON_MACHINES["compute"])) if plan.machines else None
        mariadb, broker = stack.enter_context(durable_servers(services_of(where)))
        with stage(mariadb, broker, plan, where) as cluster:
            report = asyncio.run(chaos(cluster, plan, partial(FaultsOfMachines, where) if where else Faults))
            print(report, flush=True)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    main()
