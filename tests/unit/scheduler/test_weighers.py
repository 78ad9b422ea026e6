"""Weighers rank; what each prefers, on hosts that are equal but for that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilonova.scheduler.explain import explain
from kilonova.scheduler.node import Aggregate
from kilonova.scheduler.pick import _top
from kilonova.scheduler.picture import Floats, Picture
from kilonova.scheduler.registry import Rules
from kilonova.scheduler.request import Group
from tests.support.hosts import node, placed, request, rules

ONE = {"host_subset_size": 1}


def first(picture: Picture, asked: Any = None, **options: Any) -> str:
    return placed(picture, asked or request(), rules(**(ONE | options))).candidates[0].host


@pytest.mark.parametrize(
    ("multiplier", "more"),
    [
        ("cpu_weight_multiplier", {"vcpus_max": 9}),
        ("ram_weight_multiplier", {"memory_mb_max": 9999}),
        ("disk_weight_multiplier", {"disk_gb_max": 999}),
        ("num_instances_weight_multiplier", {"running_vms": 3}),
        ("hypervisor_version_weight_multiplier", {"hypervisor_version": 9}),
    ],
)
def test_more_is_better_or_worse_as_the_multiplier_says(multiplier: str, more: dict[str, int]) -> None:
    def picture() -> Picture:
        return Picture([node(1), node(2, **more), node(3)])

    assert first(picture(), **{multiplier: 1.0}) == "h2"
    assert first(picture(), **{multiplier: -1.0}) != "h2"
    own = Aggregate(id=1, name="a", hosts=frozenset({"h1", "h2", "h3"}), metadata={multiplier: "-1.0, 5"})
    with_own = picture()
    with_own.set_aggregates([own])
    assert first(with_own, **{multiplier: 1.0}) != "h2"


def test_busy_hosts_and_those_where_builds_failed_come_last() -> None:
    picture = Picture([node(1), node(2, memory_mb_max=5000)])
    picture.set_io_ops({"h2": 3})
    assert first(picture, io_ops_weight_multiplier=-5.0) == "h1"
    assert first(picture, io_ops_weight_multiplier=0.0) == "h2"
    failed = Picture([node(1), node(2, memory_mb_max=99_000, vcpus_max=99, failed_builds=1)])
    placement = placed(failed, request(), rules(**ONE))
    assert [candidate.host for candidate in placement.candidates] == ["h1", "h2"]
    assert [candidate.failing for candidate in placement.candidates] == [False, True]


@pytest.mark.parametrize("options", [{}, {"host_subset_size": 8}, {"shuffle_best_same_weighed_hosts": True}])
def test_chance_overrules_no_soft_policy_and_no_failed_build(options: dict[str, Any]) -> None:
    def chosen(by: Rules, failing: bool = True, **kw: Any) -> set[str]:
        # A picture of its own for each: what was given away before would count.
        pictures = [
            Picture([node(number, failed_builds=number % 2 * failing) for number in range(4)]) for _ in range(40)
        ]
        return {placed(one, request(**kw), by, seed).candidates[0].host for seed, one in enumerate(pictures)}

    members = {"h1": 1, "h2": 2}
    by = rules(**options)
    assert chosen(by, failing=False, group=Group(policy="soft-anti-affinity", members=members)) == {"h0", "h3"}
    assert chosen(by, failing=False, group=Group(policy="soft-affinity", members=members)) == {"h2"}
    assert chosen(by) == {"h0", "h2"}


def test_soft_policies_rank_and_never_refuse() -> None:
    def picture() -> Picture:
        return Picture([node(n) for n in range(3)])

    members = {"h1": 2, "h2": 1}
    together = request(group=Group(policy="soft-affinity", members=members))
    apart = request(group=Group(policy="soft-anti-affinity", members=members))
    assert [c.host for c in placed(picture(), together, rules(**ONE)).candidates] == ["h1", "h2", "h0"]
    assert [c.host for c in placed(picture(), apart, rules(**ONE)).candidates] == ["h0", "h2", "h1"]


def test_metrics_count_by_their_ratios() -> None:
    def picture() -> Picture:
        return Picture([node(1, metrics={"load": 0.2}), node(2, metrics={"load": 0.9}), node(3)])

    setting = {"metrics_weight_setting": (("load", -1.0),), "metrics_required": False}
    assert first(picture(), **setting) == "h1"
    assert {c.host for c in placed(picture(), request(), rules(**(ONE | setting))).candidates} == {"h1", "h2", "h3"}
    strict = rules(**(ONE | setting | {"metrics_required": True}))
    assert {c.host for c in placed(picture(), request(), strict).candidates} == {"h1", "h2"}


def test_explain_gives_each_weighers_part() -> None:
    told = explain(Picture([node(1), node(2, memory_mb_max=8192), node(3, vcpus_max=0)]), request(), rules(**ONE))
    assert [one.host for one in told.hosts] == ["h2", "h1", "h3"]
    assert told.hosts[0].weights == {"RAMWeigher": 1.0}
    assert told.hosts[0].weight == 1.0
    assert told.removed == {
        "ComputeFilter": 0, "not enough vCPUs": 1, "not enough memory": 0, "not enough disk": 0,
    }  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 40))
def test_the_top_is_the_head_of_the_whole_order(weights: list[int], count: int) -> None:
    array: Floats = np.array(weights, dtype=np.float64)
    whole = sorted(range(len(weights)), key=lambda row: (-weights[row], row))
    assert _top(array, min(count, len(weights))) == whole[:count]
