"""Filters in their order, weighers, and a random choice among the best so that bursts spread."""

from __future__ import annotations

import random

import numpy as np

from kilonova.scheduler.picture import Bools, Floats, Ints, Picture
from kilonova.scheduler.registry import Rules
from kilonova.scheduler.request import Candidate, Placement, PlacementRequest


def place(
    picture: Picture, request: PlacementRequest, rules: Rules, chance: random.Random, now: float = 0.0
) -> Placement:
    """Rank the hosts that can take the request, and deduct it from the first one (`now`: seconds, for `taken`)."""
    total = len(picture)
    left: Bools = np.ones(total, dtype=np.bool_)
    remaining = total
    removed: list[tuple[str, int]] = []
    for one in rules.filters:
        if request.forced and not one.even_forced:
            continue
        mask = one.mask(picture, request)
        if mask is None:
            continue
        left = left & mask
        after = int(np.count_nonzero(left))
        removed.append((one.name, remaining - after))
        remaining = after
        if not remaining:
            break
    if not remaining:
        return Placement(candidates=[], hosts=total, removed=removed, nearest=nearest(picture, request, rules))
    rows = np.flatnonzero(left)
    order = ranked(picture, request, rules, rows, chance)
    picture.take(order[0], request, now)
    failing = picture.number("failed_builds")
    candidates = [
        Candidate(
            node_id=node.id,
            host=node.host,
            node=node.node,
            availability_zone=picture.zone_of(node.host),
            aggregates_generation=picture.aggregates_generation(node.host),
            failing=bool(failing[row]),
        )
        for row, node in ((row, picture.nodes[row]) for row in order)
    ]
    return Placement(candidates=candidates, hosts=total, removed=removed)


def weights(picture: Picture, request: PlacementRequest, rules: Rules, rows: Ints) -> tuple[Floats, Floats | None]:
    """All, and those of the weighers that chance may not overrule; None when these find the hosts alike."""
    total: Floats = np.zeros(len(rows), dtype=np.float64)
    decisive: Floats | None = None
    for one in rules.weighers:
        mine = one.weights(picture, request, rows)
        if not isinstance(mine, float):
            total += mine
            if one.decisive:
                decisive = mine if decisive is None else decisive + mine
    return total, decisive


def ranked(picture: Picture, request: PlacementRequest, rules: Rules, rows: Ints, chance: random.Random) -> list[int]:
    """The best rows, best first, with one of the best few at random in front."""
    options = rules.options
    weight, decisive = weights(picture, request, rules, rows)
    count = min(max(options.host_subset_size, options.max_placement_results), len(rows))
    if options.shuffle_best_same_weighed_hosts:
        best = np.flatnonzero(weight == weight.max()).tolist()
        chance.shuffle(best)
        if len(best) < count:
            rest = [row for row in _top(weight, count) if row not in set(best)]
            best += rest[: count - len(best)]
        best = best[:count]
    else:
        best = _top(weight, count)
    few = best[: max(1, options.host_subset_size)]
    if decisive is not None:
        few = [row for row in few if decisive[row] >= decisive[few[0]]]
    first = chance.choice(few)
    order = [first, *(row for row in best if row != first)][: max(1, options.max_placement_results)]
    return [int(rows[row]) for row in order]


def _top(weight: Floats, count: int) -> list[int]:
    """Places of the `count` largest, largest first; of equals the earlier ones."""
    if count >= len(weight):
        chosen = np.arange(len(weight))
    else:
        bound = np.partition(weight, len(weight) - count)[len(weight) - count]
        above = np.flatnonzero(weight > bound)
        equal = np.flatnonzero(weight == bound)[: count - len(above)]
        chosen = np.concatenate([above, equal])
    order = np.lexsort((chosen, -weight[chosen]))
    found: list[int] = chosen[order].tolist()
    return found


def verdicts(picture: Picture, request: PlacementRequest, rules: Rules) -> list[tuple[int, Bools]]:
    """Of every filter that has something to say its place among the rules and its mask."""
    found = []
    for place_, one in enumerate(rules.filters):
        if request.forced and not one.even_forced:
            continue
        mask = one.mask(picture, request)
        if mask is not None:
            found.append((place_, mask))
    return found


def nearest(picture: Picture, request: PlacementRequest, rules: Rules) -> str | None:
    """What the host that the fewest filters refuse lacks; of several the one that lacks least of it."""
    if not len(picture):
        return None
    found = verdicts(picture, request, rules)
    misses = np.zeros(len(picture), dtype=np.int64)
    for _, mask in found:
        misses += ~mask
    fewest = int(misses.min())
    if not fewest:
        return None
    rows = np.flatnonzero(misses == fewest)
    row = int(rows[np.argmin(_lack(picture, request, rows))])
    said = [rules.filters[index].why(picture, row, request) for index, mask in found if not mask[row]]
    return ", ".join(said[:3])


def _lack(picture: Picture, request: PlacementRequest, rows: Ints) -> Floats:
    """How much of what is counted is missing on each row, as a share of what is needed."""
    lack: Floats = np.zeros(len(rows), dtype=np.float64)
    for free, wanted in (
        (picture.free_vcpus, request.vcpus),
        (picture.free_memory_mb, request.memory_mb),
        (picture.free_disk_gb, request.disk_gb),
    ):
        if wanted:
            lack += np.maximum(wanted - free[rows], 0) / wanted
    return lack
