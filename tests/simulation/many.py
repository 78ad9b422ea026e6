"""Many runs, in several processes; and one of them told as it went."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import structlog

from tests.simulation.run import Outcome, Simulator

_simulator: Simulator | None = None


def prepare() -> None:
    global _simulator
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    _simulator = Simulator()


def run(seed: int) -> Outcome:
    assert _simulator is not None
    return _simulator.run(seed)


def run_all(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """The outcomes as they come, from `jobs` processes."""
    with multiprocessing.get_context("spawn").Pool(jobs, prepare) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=4)


def replay(seed: int) -> Outcome:
    """One run with its trace, and what the roles log among it."""
    lines: list[str] = []

    def keep(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        shown = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
        lines.append(f"       log {method}: {event['event']} {shown}")
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.format_exc_info, keep], cache_logger_on_first_use=False)
    return Simulator().run(seed, lines=lines)
