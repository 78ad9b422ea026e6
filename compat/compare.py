"""Differences between what two services answered."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.microversions import minor
from compat.play import Answer, Key

DEVIATIONS = Path(__file__).with_name("deviations.toml")


@dataclass(frozen=True, kw_only=True)
class Difference:
    key: Key
    operation: str
    where: str
    """`status`, `header vary`, `body.server.name`, ..."""
    reference: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.where}: reference {_short(self.reference)}, ours {_short(self.ours)}"


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A difference that is meant. `step` is a pattern for `story/step`, `where` for the place."""

    step: str
    where: str
    reason: str
    since: int = 1
    until: int = 104
    token: str = "*"

    def covers(self, difference: Difference) -> bool:
        key = difference.key
        number = minor(key.version) if key.version.startswith("2.") else 1
        return (
            fnmatch.fnmatchcase(f"{key.story}/{key.step}", self.step)
            and fnmatch.fnmatchcase(difference.where, self.where)
            and fnmatch.fnmatchcase(key.token, self.token)
            and self.since <= number <= self.until
        )


MISSING = "(absent)"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def differences(reference: Mapping[Key, Answer], ours: Mapping[Key, Answer]) -> list[Difference]:
    """Of every request that the reference's side has an answer to, and of those only ours has."""
    found = []
    for key, answer in reference.items():
        other = ours.get(key)
        pairs = _answers(answer, other) if other is not None else iter([("request", "answered", "not played")])
        found += [
            Difference(key=key, operation=answer.operation, where=where, reference=a, ours=b) for where, a, b in pairs
        ]
    for key, answer in ours.items():
        if key not in reference:
            found.append(
                Difference(
                    key=key, operation=answer.operation, where="request", reference="not played", ours="answered"
                )
            )
    return found


def _answers(a: Answer, b: Answer) -> Iterator[tuple[str, Any, Any]]:
    if a.status != b.status:
        yield "status", a.status, f"{b.status} {_short(b.body)}" if b.status >= 400 else b.status
        return
    for name in sorted({*a.headers, *b.headers}):
        if name == "content-type" and a.body == "" and b.body == "":
            continue
        if a.headers.get(name) != b.headers.get(name):
            yield f"header {name}", a.headers.get(name, MISSING), b.headers.get(name, MISSING)
    yield from _bodies(a.body, b.body, "body")


def _bodies(a: Any, b: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            place = f"{where}.{key}"
            if key not in b or key not in a:
                yield place, a.get(key, MISSING), b.get(key, MISSING)
            else:
                yield from _bodies(a[key], b[key], place)
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{where}[#]", f"{len(a)} items {_short(a)}", f"{len(b)} items {_short(b)}"
            return
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _bodies(one, other, f"{where}[{number}]")
    elif type(a) is not type(b) or a != b:
        yield where, a, b


def load_deviations(path: Path = DEVIATIONS) -> list[Deviation]:
    if not path.exists():
        return []
    return [Deviation(**entry) for entry in tomllib.loads(path.read_text()).get("deviation", [])]


def undeclared(
    found: list[Difference], deviations: list[Deviation]
) -> tuple[list[Difference], dict[Deviation, list[Difference]]]:
    """What no deviation covers, and what each covers."""
    covered: dict[Deviation, list[Difference]] = {deviation: [] for deviation in deviations}
    rest = []
    for difference in found:
        for deviation in deviations:
            if deviation.covers(difference):
                covered[deviation].append(difference)
                break
        else:
            rest.append(difference)
    return rest, covered
