"""Compare with the reference: `python -m compat`.

Plays the stories against the reference and against this service, prints every difference that is not declared in
`deviations.toml`, and fails if there is one. `--write` also records the reference's answers and the document.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from compat import document, golden
from compat.compare import Difference, differences, load_deviations, undeclared
from compat.oracle import ENVIRONMENT, ROOT, oracle
from compat.ours import ours
from compat.play import Answer, Key, Play, Side
from compat.stories import SETTINGS, STORIES

SHOWN = 40
"""Differences printed per story, unless asked for all."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compat", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--story", action="append", choices=sorted(STORIES), help="only this one (may be repeated)")
    parser.add_argument(
        "--thorough", action="store_true", help="views at every microversion, not at the boundaries alone"
    )
    parser.add_argument("--write", action="store_true", help="record the answers and write docs/compatibility.md")
    parser.add_argument(
        "--golden", action="store_true", help="compare with the recorded answers, without the reference"
    )
    parser.add_argument(
        "--twice", action="store_true", help="the reference against itself: what differs is not comparable"
    )
    parser.add_argument("--all", action="store_true", help="print every difference")
    return parser.parse_args()


@contextlib.asynccontextmanager
async def _reference() -> AsyncIterator[Side]:
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    async with oracle(ENVIRONMENT.parent / "oracle.log") as side:
        yield side


async def tell(side: Side, names: list[str], thorough: bool, *, record: bool = False) -> dict[str, dict[Key, Answer]]:
    told: dict[str, dict[Key, Answer]] = {}
    for name in names:
        play = Play(side=side, story=name, thorough=thorough)
        started = time.monotonic()
        await side.configure(SETTINGS.get(name, {}))
        try:
            await STORIES[name](play)
        except Exception as error:
            print(f"{side.name}: {name} broke off: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            if record:
                golden.write(name, play.answers)
        told[name] = play.answers
        print(f"{side.name}: {name}: {len(play.answers)} requests, {time.monotonic() - started:.1f} s", flush=True)
    return told


async def tell_ours(names: list[str], thorough: bool) -> dict[str, dict[Key, Answer]]:
    told: dict[str, dict[Key, Answer]] = {}
    for name in names:
        async with ours(SETTINGS.get(name, {})) as side:
            told |= await tell(side, [name], thorough)
    return told


async def run(options: argparse.Namespace) -> int:
    names = options.story or list(STORIES)
    if options.golden:
        reference = {name: golden.read(name) for name in names}
    else:
        async with _reference() as side:
            reference = await tell(side, names, options.thorough, record=options.write)
            second = await tell(side, names, options.thorough) if options.twice else None
    mine = second if options.twice else await tell_ours(names, options.thorough)
    assert mine is not None
    found = [difference for name in names for difference in differences(reference[name], mine[name])]
    rest, covered = undeclared(found, [] if options.twice else load_deviations())
    report(rest, None if options.all else SHOWN)
    stale = [deviation for deviation, where in covered.items() if not where]
    if stale and not options.story:
        for deviation in stale:
            print(f"declared, but no longer there: {deviation.step} {deviation.where}")
    requests = sum(len(answers) for answers in reference.values())
    print(f"{requests} requests compared, {len(found)} differences, {len(rest)} not declared")
    if options.write:
        everything = {key: answer for answers in reference.values() for key, answer in answers.items()}
        text = document.render(everything, rest, covered)
        (ROOT / "docs" / "compatibility.md").write_text(text)
    return 1 if rest or (stale and not options.story) else 0


def report(found: list[Difference], most: int | None) -> None:
    by_story: dict[str, dict[tuple[str, str], list[Difference]]] = {}
    for difference in found:
        place = (difference.key.step, str(difference))
        by_story.setdefault(difference.key.story, {}).setdefault(place, []).append(difference)
    for story, groups in by_story.items():
        print(f"\n{story}: {len(groups)} kinds of difference")
        for (step, text), same in list(groups.items())[:most]:
            at = ",".join(dict.fromkeys(difference.key.version for difference in same))
            tokens = ",".join(dict.fromkeys(difference.key.token for difference in same))
            print(f"  {step} [{at}] ({tokens}) {text}")
        if most is not None and len(groups) > most:
            print(f"  and {len(groups) - most} more (--all)")


def main() -> None:
    # The reference's versions and the fixtures of this run stand in the way of nobody else: own ports, own files.
    raise SystemExit(asyncio.run(run(arguments())))


if __name__ == "__main__":
    Path(ROOT / "docs").mkdir(exist_ok=True)
    main()
