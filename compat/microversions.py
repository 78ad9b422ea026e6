"""Which microversions a request is tried at."""

from __future__ import annotations

FIRST, LAST = 1, 104
EVERY = range(FIRST, LAST + 1)
LATEST = f"2.{LAST}"


def around(*minors: int, since: int = FIRST, until: int = LAST) -> list[str]:
    """Both sides of each boundary, and the ends. A boundary is the first version with the change."""
    wanted = {since, until}
    for minor in minors:
        wanted |= {minor - 1, minor}
    return [f"2.{minor}" for minor in sorted(wanted) if since <= minor <= until]


def every(*, since: int = FIRST, until: int = LAST) -> list[str]:
    return [f"2.{minor}" for minor in range(since, until + 1)]


def minor(version: str) -> int:
    """`2.37` -> 37."""
    return int(version.partition(".")[2])


def ranges(versions: list[str]) -> str:
    """`2.1-2.18, 2.26`: neighbours among the tried ones are not known to be neighbours, so both ends are named."""
    numbers = sorted(minor(version) for version in versions)
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return ", ".join(f"2.{a}" if a == b else f"2.{a}-2.{b}" for a, b in spans)
