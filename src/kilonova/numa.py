"""NUMA cells, CPUs of one's own and pages of memory: what a server may ask for, and where on a host it fits.

A host reports its cells. A server that asks for any of this is cut into cells of its own, each of which lies in one of
the host's. Which CPUs and pages a server has is kept with its claim, so what is free follows from the servers' rows.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kilonova.errors import Invalid

PCPU = "PCPU"
"""The resource class of CPUs that a server has for itself."""
SMALL_KIB = 4
LARGE, ANY = -1, -2
"""As a size of pages: the largest huge ones that fit, and any that fit, the largest first."""
_SET = re.compile(r"(\^?)(\d+)(?:-(\d+))?")
_UNITS = {"": 1, "k": 1, "m": 1024, "g": 1024**2}


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One of a host's cells. `pages`: (KiB, number) of huge pages that servers may have."""

    id: int
    memory_mb: int
    cpus: tuple[int, ...] = ()
    """Those that servers share."""
    dedicated: tuple[int, ...] = ()
    """Those that a server may have for itself."""
    siblings: tuple[tuple[int, ...], ...] = ()
    """Of these, which are threads of one core; a CPU that is in none has its core for itself."""
    pages: tuple[tuple[int, int], ...] = ()


def divided(cells: Iterable[Cell], shared: frozenset[int] | None, dedicated: frozenset[int] | None) -> tuple[Cell, ...]:
    """Cells that were found with all their CPUs in `cpus`, as `[compute] cpu_shared_set` and `cpu_dedicated_set` (None:
    not said) divide them. Where only dedicated ones are named, none are shared. Raises Invalid.
    """
    found = tuple(cells)
    there = {cpu for cell in found for cpu in cell.cpus}
    for name, named in (("cpu_shared_set", shared), ("cpu_dedicated_set", dedicated)):
        if named is not None and named - there:
            raise Invalid(
                f"Configuration: [compute] {name}: this host has no CPU {write_cpus(named - there)}; "
                f"it has {write_cpus(there)}."
            )
    if both := (shared or frozenset()) & (dedicated or frozenset()):
        raise Invalid(f"Configuration: [compute] cpu_shared_set and cpu_dedicated_set both have {write_cpus(both)}.")
    if shared is None:
        shared = frozenset(there) if dedicated is None else frozenset()
    mine = dedicated or frozenset()
    return tuple(
        msgspec.structs.replace(
            cell,
            cpus=tuple(cpu for cpu in cell.cpus if cpu in shared),
            dedicated=tuple(cpu for cpu in cell.cpus if cpu in mine),
            siblings=tuple(
                threads for group in cell.siblings if len(threads := tuple(cpu for cpu in group if cpu in mine)) > 1
            ),
        )
        for cell in found
    )


def read_reserved(texts: Sequence[str]) -> dict[tuple[int, int], int]:
    """`[DEFAULT] reserved_huge_pages`: by cell and size (KiB) how many pages are the host's. Raises Invalid."""
    found: dict[tuple[int, int], int] = {}
    for text in texts:
        try:
            said = dict(part.strip().split(":", 1) for part in text.split(","))
            found[int(said["node"]), read_page(said["size"])] = int(said["count"])
        except (KeyError, ValueError):
            raise Invalid(
                f"Configuration: reserved_huge_pages = {text}: node:0,size:2048,count:64 is accepted."
            ) from None
    return found


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A server's cell in one of its host's."""

    cell: int
    cpus: tuple[int, ...]
    """The server's."""
    memory_mb: int
    pins: tuple[int, ...] = ()
    """The host's CPU of each of these; none: they share."""
    kept_free: tuple[int, ...] = ()
    """Threads beside the pins that nobody gets."""
    page_kib: int | None = None

    @property
    def pinning(self) -> dict[int, int]:
        """By the server's CPU the host's; empty where they share."""
        return dict(zip(self.cpus, self.pins, strict=True)) if self.pins else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A cell as it is asked for: vCPUs by number, memory in MiB."""

    cpus: tuple[int, ...]
    memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    parts: tuple[Part, ...]
    dedicated: bool = False
    threads: str = "prefer"
    """How dedicated CPUs go with cores: prefer (fill them), isolate (one for each), require (whole ones)."""
    page: int | None = None
    """KiB, LARGE or ANY; None: nobody cares."""


def read_cpus(text: str) -> frozenset[int]:
    """CPUs as `0-3,^2,8`. Raises ValueError."""
    named: set[int] = set()
    without: set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = _SET.fullmatch(part)
        if found is None or (found[3] and int(found[3]) < int(found[2])):
            raise ValueError(f"'{part}' is no CPU and no range of them")
        (without if found[1] else named).update(range(int(found[2]), int(found[3] or found[2]) + 1))
    return frozenset(named - without)


def write_cpus(cpus: Iterable[int]) -> str:
    """The other way round, shortest form."""
    groups = itertools.groupby(enumerate(sorted(cpus)), lambda pair: pair[1] - pair[0])
    runs = [[cpu for _, cpu in group] for _, group in groups]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def read_page(text: str) -> int:
    """A size of pages in KiB, as `2048`, `2MB` or `1GB`. Raises ValueError."""
    found = re.fullmatch(r"(\d+)\s*([kmg]?)i?b?", text.strip().lower())
    if found is None or not int(found[1]):
        raise ValueError(f"'{text}' is no size of pages")
    return int(found[1]) * _UNITS[found[2]]


def read_cells(kept: Any) -> tuple[Cell, ...]:
    """As the database has a host's cells."""
    return msgspec.convert(kept or (), tuple[Cell, ...])


def read_placed(kept: Any) -> tuple[Placed, ...]:
    """As a server's claim has them."""
    return msgspec.convert(kept or (), tuple[Placed, ...])


class _Free:
    """What is left of a host's cell."""

    def __init__(self, cell: Cell, taken: Sequence[Placed]) -> None:
        mine = [one for one in taken if one.cell == cell.id]
        self.cell = cell
        self.cpus = set(cell.dedicated).difference(*(one.pins for one in mine), *(one.kept_free for one in mine))
        self.sharing = sum(len(one.cpus) for one in mine if not one.pins)
        used: Counter[int | None] = Counter()
        for one in mine:
            used[one.page_kib] += one.memory_mb
        self.memory_mb = cell.memory_mb - used[None] - used[SMALL_KIB]
        self.pages = {kib: count - used[kib] * 1024 // kib for kib, count in cell.pages}


def fit(
    asked: Asked, cells: Sequence[Cell], taken: Sequence[Placed], *, cpu_ratio: float = 1.0, memory_ratio: float = 1.0
) -> tuple[Placed, ...] | str:
    """Where the server goes beside those that are there, or in words why it does not.

    Ratios hold for CPUs and memory that are shared with others; nothing is given out more than once of pages, of
    dedicated CPUs, and of what one server has in one cell.
    """
    if not cells:
        return "reports no NUMA cells"
    if len(asked.parts) > len(cells):
        return f"has {len(cells)} NUMA cell{'s' if len(cells) > 1 else ''}, the server asks for {len(asked.parts)}"
    free = {cell.id: _Free(cell, taken) for cell in cells}
    why: list[str] = []

    def place(done: tuple[Placed, ...]) -> tuple[Placed, ...] | None:
        if len(done) == len(asked.parts):
            return done
        part = asked.parts[len(done)]
        for cell in cells:
            if any(one.cell == cell.id for one in done):
                continue
            found = _fit_part(asked, part, free[cell.id], cpu_ratio, memory_ratio)
            if isinstance(found, str):
                why.append(found)
                continue
            whole = place((*done, found))
            if whole is not None:
                return whole
        return None

    return place(()) or f"has no NUMA cell {why[0]}"


def _fit_part(asked: Asked, part: Part, free: _Free, cpu_ratio: float, memory_ratio: float) -> Placed | str:
    count, cell = len(part.cpus), free.cell
    pins: tuple[int, ...] = ()
    kept_free: tuple[int, ...] = ()
    if asked.dedicated:
        chosen = _POLICIES[asked.threads](free, count)
        if chosen is None:
            return f"with {count} free dedicated CPUs" + _THREADS[asked.threads]
        pins, kept_free = chosen
    elif count > len(cell.cpus) or free.sharing + count > len(cell.cpus) * cpu_ratio:
        return f"with {count} CPUs to share"
    page = _page(asked, part, free, memory_ratio)
    if isinstance(page, str):
        return page
    return Placed(
        cell=cell.id, cpus=part.cpus, memory_mb=part.memory_mb, pins=pins, kept_free=kept_free, page_kib=page or None
    )


def _page(asked: Asked, part: Part, free: _Free, memory_ratio: float) -> int | str:
    """The size of the pages, 0 where nobody cares; in words what is missing."""
    overcommitted = free.memory_mb + (memory_ratio - 1) * free.cell.memory_mb
    if asked.page is None:
        fits = part.memory_mb <= min(overcommitted, free.cell.memory_mb)
        return 0 if fits else f"with {part.memory_mb} MiB of memory"
    sizes = sorted(free.pages, reverse=True) if asked.page in (LARGE, ANY) else [asked.page]
    for kib in sizes:
        wanted, rest = divmod(part.memory_mb * 1024, kib)
        if not rest and wanted <= free.pages.get(kib, 0):
            return kib
    if asked.page in (ANY, SMALL_KIB) and part.memory_mb <= free.memory_mb:
        return SMALL_KIB
    kind = {LARGE: "huge", ANY: "any", SMALL_KIB: "small"}.get(asked.page, f"{asked.page} KiB")
    return f"with {part.memory_mb} MiB in free pages ({kind})"


Chosen = tuple[tuple[int, ...], tuple[int, ...]] | None


def _cores(free: _Free) -> list[tuple[int, ...]]:
    """Free CPUs by their cores, those with the fewest first, so that whole ones stay whole."""
    grouped = {cpu for group in free.cell.siblings for cpu in group}
    cores = [*free.cell.siblings, *((cpu,) for cpu in free.cell.dedicated if cpu not in grouped)]
    left = [(len(core), tuple(cpu for cpu in core if cpu in free.cpus)) for core in cores]
    return [cpus for size, cpus in sorted(left, key=lambda one: (len(one[1]), one[1])) if cpus]


def _prefer(free: _Free, count: int) -> Chosen:
    pins: list[int] = []
    # Whole cores while they are needed whole, then what is left of broken ones.
    for core in sorted(_cores(free), key=lambda core: (-len(core), core)):
        if len(core) <= count - len(pins):
            pins += core
    rest = (cpu for core in _cores(free) for cpu in core if cpu not in pins)
    pins += itertools.islice(rest, count - len(pins))
    return (tuple(sorted(pins)), ()) if len(pins) == count else None


def _isolate(free: _Free, count: int) -> Chosen:
    grouped = {cpu: group for group in free.cell.siblings for cpu in group}
    whole = [core for core in _cores(free) if len(core) == len(grouped.get(core[0], core))][:count]
    if len(whole) < count:
        return None
    return tuple(sorted(core[0] for core in whole)), tuple(sorted(cpu for core in whole for cpu in core[1:]))


def _require(free: _Free, count: int) -> Chosen:
    whole = sorted(core for core in _cores(free) if len(core) > 1)
    pins = [cpu for core in whole for cpu in core][:count]
    return (tuple(pins), ()) if len(pins) == count else None


_POLICIES: dict[str, Callable[[_Free, int], Chosen]] = {"prefer": _prefer, "isolate": _isolate, "require": _require}
_THREADS = {"prefer": "", "isolate": " on cores of their own", "require": " that share their cores"}


def read_asked(
    vcpus: int, memory_mb: int, extra_specs: dict[str, str] | Any, properties: dict[str, str] | Any
) -> Asked | None:
    """What a flavor and an image ask for, None where that is nothing. Raises Invalid, naming the setting.

    An image may say what its flavor leaves open, and never other things than the flavor.
    """
    said = {key.removeprefix("hw:"): str(value) for key, value in extra_specs.items() if key.startswith("hw:")}
    image = {key.removeprefix("hw_"): str(value) for key, value in properties.items() if key.startswith("hw_")}
    policy = _agreed("cpu_policy", said, image, ("shared", "dedicated"))
    threads = _agreed("cpu_thread_policy", said, image, ("prefer", "isolate", "require"))
    if threads and policy != "dedicated":
        raise Invalid(f"The {_named('cpu_thread_policy', said)} asks for cpu_policy=dedicated.")
    page = _page_asked(said, image)
    nodes = _agreed("numa_nodes", said, image, None)
    parts = _parts(vcpus, memory_mb, nodes, said, image)
    if parts is None:
        if policy != "dedicated" and page is None:
            return None
        parts = (Part(cpus=tuple(range(vcpus)), memory_mb=memory_mb),)
    return Asked(parts=parts, dedicated=policy == "dedicated", threads=threads or "prefer", page=page)


def _agreed(name: str, said: dict[str, str], image: dict[str, str], accepted: Sequence[str] | None) -> str | None:
    flavor, other = said.get(name), image.get(name)
    if flavor and other and flavor != other:
        raise Invalid(f"The image asks for {name}={other}, its flavor for {flavor}: an image may not change that.")
    value = flavor or other
    if value and accepted is not None and value not in accepted:
        raise Invalid(f"The {_named(name, said)}={value} cannot be honoured; accepted here: {', '.join(accepted)}.")
    return value


def _named(name: str, said: dict[str, str]) -> str:
    """As whoever wrote it knows it: the flavor's word goes before the image's."""
    return f"flavor extra spec hw:{name}" if said.get(name) else f"image property hw_{name}"


def _page_asked(said: dict[str, str], image: dict[str, str]) -> int | None:
    flavor, other = said.get("mem_page_size"), image.get("mem_page_size")
    if other and flavor not in ("large", "any"):
        raise Invalid(f"The image asks for mem_page_size={other}, which only a flavor that says large or any allows.")
    text = other or flavor
    if not text:
        return None
    try:
        return {"small": SMALL_KIB, "large": LARGE, "any": ANY}.get(text) or read_page(text)
    except ValueError:
        what = _named("mem_page_size", {} if other else said)
        raise Invalid(
            f"The {what}={text} cannot be honoured; accepted: small, large, any, or a size like 2048 (KiB), 1GB."
        ) from None


def _parts(
    vcpus: int, memory_mb: int, nodes: str | None, said: dict[str, str], image: dict[str, str]
) -> tuple[Part, ...] | None:
    names = [name for name in (*said, *image) if re.fullmatch(r"numa_(cpus|mem)\.\d+", name)]
    if nodes is None:
        if names:
            raise Invalid(f"{min(names)} asks for numa_nodes.")
        return None
    if not nodes.isdecimal() or not 1 <= int(nodes) <= vcpus:
        raise Invalid(
            f"The {_named('numa_nodes', said)}={nodes} cannot be honoured; "
            f"a number from 1 to the flavor's vCPUs ({vcpus}) is."
        )
    count = int(nodes)
    if wrong := [name for name in names if int(name.rpartition(".")[2]) >= count]:
        raise Invalid(f"{min(wrong)} names a node that numa_nodes={count} does not have.")
    cpus = [_agreed(f"numa_cpus.{number}", said, image, None) for number in range(count)]
    memory = [_agreed(f"numa_mem.{number}", said, image, None) for number in range(count)]
    if not any(cpus) and not any(memory):
        if vcpus % count or memory_mb % count:
            raise Invalid(
                f"{vcpus} vCPUs and {memory_mb} MiB cannot be divided evenly by numa_nodes={count}: say numa_cpus.N "
                "and numa_mem.N for every node."
            )
        size = vcpus // count
        return tuple(
            Part(cpus=tuple(range(size * number, size * (number + 1))), memory_mb=memory_mb // count)
            for number in range(count)
        )
    if not all(cpus) or not all(memory):
        raise Invalid("numa_cpus.N and numa_mem.N are needed for every node where any is given.")
    try:
        sets = [tuple(sorted(read_cpus(text or ""))) for text in cpus]
        sizes = [int(text or "") for text in memory]
    except ValueError as error:
        raise Invalid(f"numa_cpus.N are sets of vCPUs like 0-3, numa_mem.N are MiB: {error}.") from None
    if sorted(cpu for one in sets for cpu in one) != list(range(vcpus)):
        raise Invalid(f"numa_cpus.N have to name each of the {vcpus} vCPUs once.")
    if sum(sizes) != memory_mb or min(sizes) < 1:
        raise Invalid(f"numa_mem.N have to add up to the flavor's {memory_mb} MiB.")
    return tuple(Part(cpus=one, memory_mb=size) for one, size in zip(sets, sizes, strict=True))
