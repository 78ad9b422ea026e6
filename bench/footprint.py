"""How long Compute's own roles take to start and how much memory they hold."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """`start` is seconds from the command to 'a server can be created', on an existing database (the median);
    `start_cpu` processor seconds of it; `idle` bytes (RSS)."""

    first_start: float
    start: float
    start_cpu: float
    idle: int


def measure(directory: Path, offset: int, runs: int = 3, idle_seconds: float = 3.0) -> Footprint:
    times, cpu, idle = [], [], 0
    for number in range(runs + 1):
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.roles", str(directory), str(offset)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            process.kill()
            raise RuntimeError("the roles did not start")
        times.append(time.perf_counter() - started)
        known = psutil.Process(process.pid)
        used = known.cpu_times()
        cpu.append(used.user + used.system)
        if number == runs:
            time.sleep(idle_seconds)
            idle = known.memory_info().rss
        process.terminate()
        process.wait(15)
        process.stdout.close()
    return Footprint(
        first_start=times[0], start=statistics.median(times[1:]), start_cpu=statistics.median(cpu[1:]), idle=idle
    )
