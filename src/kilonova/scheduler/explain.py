"""Why each host was taken or left out: every filter is asked about every host, also those that another refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kilonova.scheduler.pick import nearest, verdicts, weights
from kilonova.scheduler.picture import Picture
from kilonova.scheduler.registry import Rules
from kilonova.scheduler.request import PlacementRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVerdict:
    """`refusals`: filter to its words, empty for a host that is left; `weights`: weigher to its part of `weight`."""

    host: str
    node: str
    availability_zone: str
    refusals: dict[str, str]
    weights: dict[str, float]
    weight: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Hosts: those left, best first; then the others, those that the fewest filters refuse first.

    `removed`: filters that had something to say, with how many hosts each refuses on its own.
    """

    hosts: list[HostVerdict]
    removed: dict[str, int]
    nearest: str | None

    @property
    def left(self) -> int:
        return sum(not host.refusals for host in self.hosts)


def explain(picture: Picture, request: PlacementRequest, rules: Rules) -> Explanation:
    found = [(rules.filters[place], mask) for place, mask in verdicts(picture, request, rules)]
    passed = np.ones(len(picture), dtype=np.bool_)
    for _, mask in found:
        passed &= mask
    rows = np.flatnonzero(passed)
    all_in_all = weights(picture, request, rules, rows)[0] if len(rows) else rows
    total = dict(zip(rows.tolist(), all_in_all.tolist(), strict=True))
    parts: dict[int, dict[str, float]] = {row: {} for row in total}
    for weigher in rules.weighers if len(rows) else ():
        mine = weigher.weights(picture, request, rows)
        if not isinstance(mine, float):
            for row, value in zip(rows.tolist(), mine.tolist(), strict=True):
                parts[row][weigher.name] = value
    hosts = []
    for row, node in enumerate(picture.nodes):
        refusals = {one.name: one.why(picture, row, request) for one, mask in found if not mask[row]}
        hosts.append(
            HostVerdict(
                host=node.host,
                node=node.node,
                availability_zone=picture.zone_of(node.host),
                refusals=refusals,
                weights=parts.get(row, {}),
                weight=total.get(row, 0.0),
            )
        )
    hosts.sort(key=lambda host: (len(host.refusals), -host.weight, host.host))
    return Explanation(
        hosts=hosts,
        removed={one.name: int(np.count_nonzero(~mask)) for one, mask in found},
        nearest=nearest(picture, request, rules),
    )
