"""NUMA cells of simulated hosts."""

from __future__ import annotations

from collections.abc import Sequence

from kilonova.errors import Invalid
from kilonova.numa import Cell, read_page


def even_cells(
    count: int, vcpus: int, memory_mb: int, *, threads: int = 1, pages: Sequence[str] = ()
) -> tuple[Cell, ...]:
    """CPUs and memory in equal parts, the rest left out; `pages`: SIZE:COUNT of each cell. Raises Invalid."""
    size = vcpus // count
    if not size:
        raise Invalid(f"Configuration: [sim] numa_cells = {count}: a host of {vcpus} CPUs has no more cells than CPUs.")
    try:
        sizes = [(read_page(kib), int(number)) for kib, number in (text.split(":", 1) for text in pages)]
    except ValueError as error:
        raise Invalid(f"Configuration: [sim] huge_pages: {error}; 2048:512,1GB:4 is accepted.") from error
    found = []
    for cell in range(count):
        cpus = tuple(range(cell * size, (cell + 1) * size))
        cores = [cpus[at : at + threads] for at in range(0, size, threads)]
        siblings = tuple(core for core in cores if len(core) > 1)
        found.append(
            Cell(id=cell, memory_mb=memory_mb // count, cpus=cpus, siblings=siblings, pages=tuple(sorted(sizes)))
        )
    return tuple(found)
