"""docs/compatibility.md: what was compared and what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from compat.compare import Deviation, Difference
from compat.microversions import ranges
from compat.play import Answer, Key

RESULTS = Path(__file__).with_name("tempest.json")
WORDS = {"ok": "passed", "FAILED": "failed", "SKIPPED": "classes left out"}

HEAD = """# Compatibility with the reference

Written by `make compat`, which plays the same requests against the reference implementation (nova 34.0.0 with the
fixtures of its own functional tests) and against this service on simulated hosts, and compares status, headers and
bodies. Values that each service makes for itself (ids, times, host names, amounts of resources, the wording of errors)
are compared by form only. A difference that is neither gone nor argued below fails the run.

Requests are tried on both sides of every version at which the operation changes; `make compat ARGS=--thorough` tries
views at every version from 2.1 to 2.104.

"""


def render(answers: Mapping[Key, Answer], rest: list[Difference], covered: Mapping[Deviation, list[Difference]]) -> str:
    open_ones: dict[str, list[Difference]] = {}
    for difference in rest:
        open_ones.setdefault(difference.operation, []).append(difference)
    argued: dict[str, set[int]] = {}
    numbered = [(deviation, found) for deviation, found in covered.items() if found]
    for number, (_, found) in enumerate(numbered, 1):
        for difference in found:
            argued.setdefault(difference.operation, set()).add(number)
    by_operation: dict[str, list[Key]] = {}
    for key, answer in answers.items():
        by_operation.setdefault(answer.operation, []).append(key)
    lines = [HEAD, "| operation | requests | microversions tried | result |", "| --- | --- | --- | --- |"]
    for operation in sorted(by_operation):
        keys = by_operation[operation]
        versions = sorted({key.version for key in keys if key.version.startswith("2.") and key.version != "2.999"})
        result = "same"
        if argued.get(operation):
            result = "same, but for " + ", ".join(f"[{number}](#d{number})" for number in sorted(argued[operation]))
        if open_ones.get(operation):
            result = f"**{len(open_ones[operation])} open differences**" + result.removeprefix("same")
        lines.append(f"| {operation} | {len(keys)} | {ranges(versions)} | {result} |")
    lines += ["", "## What differs on purpose", ""]
    for number, (deviation, found) in enumerate(numbered, 1):
        lines.append(
            f'<a id="d{number}"></a>{number}. {deviation.reason} ({len(found)} answers, e.g. `{_example(found[0])}`)'
        )
    if not numbered:
        lines.append("Nothing.")
    return "\n".join([*lines, *_tempest()]) + "\n"


def _tempest() -> Iterator[str]:
    """What `make tempest ARGS=--write` has kept."""
    if not RESULTS.exists():
        return
    yield from ("", "## The reference's own tests", "")
    for kept in json.loads(RESULTS.read_text()).values():
        counts = ", ".join(f"{number} {WORDS[end]}" for end, number in kept["tests"].items())
        yield f"`make tempest` ran `{kept['asked']}` of tempest {kept['version']}, unmodified, against `kilonova up`"
        yield f"(hypervisor {kept['hypervisor']}) for the extensions that Neutron claims: {counts}."
        yield ""
        for test, reason in kept["failed"].items():
            yield f"- failed: `{test}`: {reason}"
        for reason, number in kept["skipped"].items():
            yield f"- left out by tempest ({number}): {reason}"
        yield ""


def _example(difference: Difference) -> str:
    return f"{difference.key.story}/{difference.key.step} at {difference.key.version}: {difference.where}".replace(
        "|", "/"
    )
