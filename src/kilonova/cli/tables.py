"""Tables in plain characters, as operators' scripts have always read them."""

from __future__ import annotations

from collections.abc import Sequence


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, left: bool = False) -> str:
    """Framed by + - |; cells are centred, or begin at the left."""
    cells = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(headings))]
    frame = "+" + "+".join("-" * (width + 2) for width in widths) + "+"

    def line(row: Sequence[str]) -> str:
        padded = (f"{c:<{w}}" if left else f"{c:^{w}}" for c, w in zip(row, widths, strict=True))
        return "|" + "|".join(f" {cell} " for cell in padded) + "|"

    return "\n".join([frame, line(cells[0]), frame, *map(line, cells[1:]), frame])


def boxed(title: str, blocks: Sequence[Sequence[str]]) -> str:
    """A title and blocks of lines, one below the other in a frame."""
    width = max(len(line) for block in ([title], *blocks) for line in block)
    frame = "+" + "-" * (width + 2) + "+"
    lines = [frame, f"| {title:<{width}} |", frame]
    for block in blocks:
        lines += [*(f"| {line:<{width}} |" for line in block), frame]
    return "\n".join(lines)
