"""nft's tables as values, and the transaction that turns one set of tables into another. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook`: type, hook, priority and policy of a base chain, as nft writes them."""

    rules: tuple[str, ...]
    hook: str = ""


@dataclass(frozen=True, slots=True)
class Set:
    """`kind`: set or map; `head`: type and flags. `whole`: changed as a whole (intervals)."""

    kind: str
    head: str
    elements: frozenset[str]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Set] = field(default_factory=dict)


Ruleset = Mapping[tuple[str, str], Table]
"""By family and name."""

_ELEMENTS = 500
"""In one line."""


def replace(new: Ruleset) -> Iterator[str]:
    """The tables are there as they should be, whatever was there before."""
    for family, name in new:
        yield f"add table {family} {name}"
        yield f"delete table {family} {name}"
        yield f"add table {family} {name}"
    yield from _fill({key: Table() for key in new}, new)


def difference(old: Ruleset, new: Ruleset) -> Iterator[str]:
    """From `old`, which is there, to `new`; both have the same tables."""
    yield from _fill(old, new)


def _fill(old: Ruleset, new: Ruleset) -> Iterator[str]:
    """What refers comes after what it refers to, and goes before it."""
    for key, table in new.items():
        yield from _table(f"{key[0]} {key[1]}", old[key], table)


def _table(where: str, old: Table, new: Table) -> Iterator[str]:
    for name, chain in new.chains.items():
        if name not in old.chains:
            hook = f" {{ {chain.hook} }}" if chain.hook else ""
            yield f"add chain {where} {name}{hook}"
    for name, each in new.sets.items():
        if name not in old.sets:
            yield f"add {each.kind} {where} {name} {{ {each.head} }}"
    changed = [name for name, chain in new.chains.items() if old.chains.get(name, Chain(())).rules != chain.rules]
    gone = [name for name in old.chains if name not in new.chains]
    for name in [*changed, *gone]:
        if name in old.chains:
            yield f"flush chain {where} {name}"
    for name, each in new.sets.items():
        yield from _elements(f"{where} {name}", old.sets.get(name), each)
    for name in changed:
        for rule in new.chains[name].rules:
            yield f"add rule {where} {name} {rule}"
    for name in old.sets:
        if name not in new.sets:
            yield f"delete {old.sets[name].kind} {where} {name}"
    for name in gone:
        yield f"delete chain {where} {name}"


def _elements(which: str, old: Set | None, new: Set) -> Iterator[str]:
    before = old.elements if old is not None else frozenset()
    if before == new.elements:
        return
    if new.whole:
        if before:
            yield f"flush set {which}"
        yield from _lines("add", which, sorted(new.elements))
        return
    # An element that only changes what it maps to must go first.
    yield from _lines("delete", which, sorted(each.partition(" : ")[0] for each in before - new.elements))
    yield from _lines("add", which, sorted(new.elements - before))


def _lines(verb: str, which: str, elements: list[str]) -> Iterator[str]:
    for start in range(0, len(elements), _ELEMENTS):
        yield f"{verb} element {which} {{ {', '.join(elements[start : start + _ELEMENTS])} }}"
