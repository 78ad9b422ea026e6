"""What a look finds: a line for each thing looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warning", "wrong"]
_CODES: dict[Result, int] = {"ok": 0, "warning": 1, "wrong": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`check`: what was looked at, e.g. `database: schema`. `fix`: what to do, and where; None when all is well."""

    check: str
    result: Result
    text: str
    fix: str | None = None


def ok(check: str, text: str) -> Finding:
    return Finding(check=check, result="ok", text=text)


def warning(check: str, text: str, fix: str) -> Finding:
    return Finding(check=check, result="warning", text=text, fix=fix)


def wrong(check: str, text: str, fix: str) -> Finding:
    return Finding(check=check, result="wrong", text=text, fix=fix)


def worst(findings: Iterable[Finding]) -> Result:
    return max((finding.result for finding in findings), key=_CODES.__getitem__, default="ok")


def exit_code(findings: Iterable[Finding]) -> int:
    """0: all is well; 1: warnings; 2: something is wrong."""
    return _CODES[worst(findings)]
