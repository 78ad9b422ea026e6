"""Filters in their order, one weigher, and a random choice among the best so that bursts spread."""

from __future__ import annotations

import random

import numpy as np

from kilonova.scheduler.picture import Bools, Picture
from kilonova.scheduler.request import Candidate, Placement, PlacementRequest

ALTERNATES = 3
"""Candidates returned: the chosen one and those to try when its claim fails."""

SPREAD = 4
"""The first candidate is chosen among this many of the best."""


def _masks(picture: Picture, request: PlacementRequest) -> list[tuple[str, Bools]]:
    everything = np.ones(len(picture.nodes), dtype=np.bool_)
    masks: list[tuple[str, Bools]] = [
        ("ComputeFilter (disabled or down)", picture.enabled & picture.up),
    ]
    if request.host is not None or request.node is not None:
        wanted = np.zeros(len(picture.nodes), dtype=np.bool_)
        for row, node in enumerate(picture.nodes):
            wanted[row] = request.host in (None, node.host) and request.node in (None, node.node)
        masks.append(("requested host", wanted))
    if request.availability_zone is not None:
        masks.append(("AvailabilityZoneFilter", picture.zone == picture.zone_code(request.availability_zone)))
    masks += [
        ("not enough vCPUs", picture.vcpus >= request.vcpus),
        ("not enough memory", picture.memory_mb >= request.memory_mb),
        ("not enough disk", picture.disk_gb >= request.disk_gb),
    ]
    if request.exclude_nodes:
        masks.append(("failed before", ~np.isin(picture.ids, request.exclude_nodes)))
    return [(name, mask & everything) for name, mask in masks]


def place(picture: Picture, request: PlacementRequest, chance: random.Random) -> Placement:
    """Rank the hosts that can take the request, and deduct it from the first one."""
    total = len(picture.nodes)
    removed: list[tuple[str, int]] = []
    left = np.ones(total, dtype=np.bool_)
    for name, mask in _masks(picture, request):
        after = left & mask
        removed.append((name, int(left.sum() - after.sum())))
        left = after
    rows = np.flatnonzero(left)
    if not len(rows):
        return Placement(candidates=[], hosts=total, removed=removed)
    best = rows[np.argsort(-picture.memory_mb[rows], kind="stable")[: max(SPREAD, ALTERNATES)]].tolist()
    top = best[:SPREAD]
    first = chance.choice(top)
    order = [first, *(row for row in best if row != first)][:ALTERNATES]
    picture.take(first, request.vcpus, request.memory_mb, request.disk_gb)
    candidates = [
        Candidate(node_id=n.id, host=n.host, node=n.node, availability_zone=n.availability_zone)
        for n in (picture.nodes[row] for row in order)
    ]
    return Placement(candidates=candidates, hosts=total, removed=removed)
