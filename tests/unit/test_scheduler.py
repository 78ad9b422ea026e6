"""Placement is pure: a picture and a request in, candidates and reasons out."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kilonova.scheduler.pick import SPREAD, place
from kilonova.scheduler.picture import Node, Picture
from kilonova.scheduler.request import PlacementRequest


def node(number: int, **kw: Any) -> Node:
    values: dict[str, Any] = {
        "host": f"h{number}",
        "node": f"n{number}",
        "availability_zone": "nova",
        "enabled": True,
        "up": True,
        "vcpus_free": 4,
        "memory_mb_free": 4096,
        "disk_gb_free": 100,
    }
    return Node(id=number, **(values | kw))


SMALL = PlacementRequest(vcpus=1, memory_mb=512, disk_gb=1)


def test_only_hosts_with_room_that_are_up_and_enabled_are_candidates() -> None:
    picture = Picture([
        node(1, up=False), node(2, enabled=False), node(3, vcpus_free=0), node(4, memory_mb_free=511),
        node(5, disk_gb_free=0), node(6),
    ])  # fmt: skip
    placement = place(picture, SMALL, random.Random(1))
    assert [c.host for c in placement.candidates] == ["h6"]


def test_a_refusal_counts_what_each_filter_removed() -> None:
    picture = Picture([node(1, up=False), node(2, vcpus_free=0), node(3, memory_mb_free=1)])
    placement = place(picture, SMALL, random.Random(1))
    assert placement.candidates == []
    said = placement.explain()
    assert "Of 3 hosts" in said
    assert "ComputeFilter (disabled or down) removed 1" in said
    assert "not enough vCPUs removed 1" in said
    assert "not enough memory removed 1" in said


def test_no_hosts_at_all_is_said_as_such() -> None:
    assert "no compute hosts" in place(Picture([]), SMALL, random.Random(1)).explain()


def test_zone_and_requested_host_narrow_the_choice() -> None:
    picture = Picture([node(1), node(2, availability_zone="east"), node(3, availability_zone="east")])
    chance = random.Random(1)
    east = place(picture, PlacementRequest(vcpus=1, memory_mb=1, disk_gb=1, availability_zone="east"), chance)
    assert {c.host for c in east.candidates} == {"h2", "h3"}
    nowhere = place(picture, PlacementRequest(vcpus=1, memory_mb=1, disk_gb=1, availability_zone="west"), chance)
    assert nowhere.candidates == []
    h1 = place(picture, PlacementRequest(vcpus=1, memory_mb=1, disk_gb=1, host="h1"), chance)
    assert [c.host for c in h1.candidates] == ["h1"]


def test_excluded_nodes_are_left_out() -> None:
    picture = Picture([node(1), node(2)])
    placement = place(picture, PlacementRequest(vcpus=1, memory_mb=1, disk_gb=1, exclude_nodes=(1,)), random.Random(1))
    assert [c.node_id for c in placement.candidates] == [2]


def test_a_burst_over_equal_hosts_spreads() -> None:
    picture = Picture([node(n, vcpus_free=100, memory_mb_free=100_000, disk_gb_free=1000) for n in range(10)])
    chance = random.Random(7)
    firsts = Counter(place(picture, SMALL, chance).candidates[0].host for _ in range(100))
    assert len(firsts) == 10
    assert max(firsts.values()) <= 2 * 100 // 10 + SPREAD


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8192), st.booleans(), st.booleans()), max_size=20),
    st.integers(1, 8),
    st.integers(1, 8192),
)
def test_a_candidate_always_fits_and_reasons_add_up(
    hosts: list[tuple[int, int, bool, bool]], vcpus: int, memory_mb: int
) -> None:
    nodes = [
        node(i, vcpus_free=v, memory_mb_free=m, up=up, enabled=enabled) for i, (v, m, up, enabled) in enumerate(hosts)
    ]
    request = PlacementRequest(vcpus=vcpus, memory_mb=memory_mb, disk_gb=1)
    placement = place(Picture(nodes), request, random.Random(3))
    fitting = {n.id for n in nodes if n.up and n.enabled and n.vcpus_free >= vcpus and n.memory_mb_free >= memory_mb}
    assert {c.node_id for c in placement.candidates} <= fitting
    assert bool(placement.candidates) == bool(fitting)
    assert sum(count for _, count in placement.removed) == len(nodes) - len(fitting)
