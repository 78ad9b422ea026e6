"""The tables of docs/performance.md, between their marks."""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"


def write(mark: str, text: str) -> None:
    """Replace what is between the marks of this name."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, rest = DOCUMENT.read_text().split(begin, 1)
    _, tail = rest.split(end, 1)
    DOCUMENT.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
