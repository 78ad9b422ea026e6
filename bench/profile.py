"""Flame graphs of the hottest paths, by py-spy: `python -m bench --only profile` writes them to build/profile/."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import creates, scene
from bench.processes import Client, Server
from bench.watch import Watch

DIRECTORY = Path(__file__).parent.parent / "build" / "profile"
SECONDS = 8
RATE = 250
"""Samples a second; a thread that waits is not sampled."""
_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*')


@dataclass(frozen=True, kw_only=True)
class Profile:
    """`own` and `total`: share of the samples in which a function ran itself, or was called."""

    name: str
    file: Path
    samples: int
    own: list[tuple[str, float]]
    total: list[tuple[str, float]]


def profile(cloud: Server, client: Client, watch: Watch) -> list[Profile]:
    """Show, the list of 1,000 with details, create to ACTIVE. Raises RuntimeError without py-spy."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)

    def reading(path: str) -> Callable[[], None]:
        request = scene.request(cloud.port, "GET", path)
        return lambda: client.begin(cloud.port, [request], connections=4, seconds=SECONDS + 2)

    def creating() -> None:
        client.begin(cloud.port, creates.post(cloud.port), connections=20, seconds=SECONDS + 2)

    uuid = watch.uuids()[0]
    return [
        _record("show", cloud, client, reading(f"/v2.1/servers/{uuid}")),
        _record("detail-1000", cloud, client, reading("/v2.1/servers/detail?limit=1000")),
        _record("create", cloud, client, creating, watch.settled),
    ]


def _record(
    name: str, cloud: Server, client: Client, begin: Callable[[], None], settle: Callable[[], None] = lambda: None
) -> Profile:
    svg, raw = DIRECTORY / f"{name}.svg", DIRECTORY / f"{name}.txt"
    for kind, file in (("flamegraph", svg), ("raw", raw)):
        begin()
        _spy(cloud.process.pid, kind, file)
        client.result()
        settle()
    # Its title is the command line, which is of no use to anybody else.
    svg.write_text(_TITLE.sub(rf"\g<1>{name}: {SECONDS} s of kilonova's API and conductor, by py-spy", svg.read_text()))
    return _read(name, svg, raw)


def _spy(pid: int, kind: str, file: Path) -> None:
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        raise RuntimeError("py-spy is not installed: make setup")
    command = [program, "record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", str(RATE), "--nonblocking"]
    done = subprocess.run(
        [*command, "--format", kind, "--output", str(file)], capture_output=True, text=True, timeout=SECONDS + 60
    )
    if done.returncode or not file.is_file():
        raise RuntimeError(f"py-spy failed: {done.stderr.strip()[-500:]}")


def _read(name: str, svg: Path, raw: Path) -> Profile:
    """What stands in py-spy's raw form: `frame;frame;frame count` a line, the outermost first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_function(frame) for frame in stack.split(";")]
        samples += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    share = [[(each, n / samples) for each, n in counted.most_common(60)] for counted in (own, total)]
    return Profile(name=name, file=svg, samples=samples, own=share[0], total=share[1])


def _function(frame: str) -> str:
    """`_answer (kilonova/api/app.py:120)` without its line."""
    return frame.partition(":")[0] + ")" if ":" in frame else frame


def tables(found: list[Profile]) -> str:
    lines = []
    for each in found:
        lines += [
            f"### {each.name}: {each.file} ({each.samples:,} samples)",
            "",
            "| itself | function |",
            "| ---: | --- |",
        ]
        lines += [f"| {share:.1%} | {function} |" for function, share in each.own[:15]]
        lines += ["", "| with what it calls | function |", "| ---: | --- |"]
        lines += [f"| {share:.1%} | {function} |" for function, share in each.total[:30]]
        lines.append("")
    return "\n".join(lines)
