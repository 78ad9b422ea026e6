"""Placement is pure: a picture and a request in, candidates and reasons out."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilonova.errors import Invalid
from kilonova.scheduler.filters.base import HostFilter, HostView
from kilonova.scheduler.node import Aggregate
from kilonova.scheduler.options import ALL_FILTERS, SchedulerOptions
from kilonova.scheduler.pick import place
from kilonova.scheduler.picture import DISABLED, DOWN, Picture
from kilonova.scheduler.registry import make_rules
from kilonova.scheduler.request import Group, PlacementRequest
from tests.support.hosts import RULES, hosts_of, node, placed, request, rules


def picture_of(*nodes: object, down: tuple[int, ...] = (), disabled: tuple[int, ...] = ()) -> Picture:
    picture = Picture(nodes)  # type: ignore[arg-type]
    picture.set_unusable(dict.fromkeys(down, DOWN) | dict.fromkeys(disabled, DISABLED))
    return picture


def test_only_hosts_with_room_that_are_up_and_enabled_are_candidates() -> None:
    picture = picture_of(
        node(1), node(2), node(3, vcpus_used=4), node(4, memory_mb_max=511), node(5, disk_gb_max=0), node(6),
        down=(1,), disabled=(2,),
    )  # fmt: skip
    assert hosts_of(placed(picture, request())) == ["h6"]


def test_a_refusal_counts_what_each_filter_removed_and_says_what_the_nearest_host_lacks() -> None:
    picture = picture_of(node(1), node(2, vcpus_used=4), node(3, memory_mb_used=3700), down=(1,))
    placement = placed(picture, request())
    assert placement.candidates == []
    assert dict(placement.removed) == {"ComputeFilter": 1, "not enough vCPUs": 1, "not enough memory": 1}
    assert placement.explain() == (
        "No valid host was found. Of 3 hosts ComputeFilter removed 1, not enough vCPUs removed 1, not enough memory "
        "removed 1. The nearest one has a compute service that is down."
    )
    picture.set_unusable({})
    picture.put([node(1, vcpus_used=4, memory_mb_used=4096)])
    assert placed(picture, request()).nearest == "has 396 MiB of memory free of the 512 that are needed"


def test_no_hosts_at_all_is_said_as_such() -> None:
    assert "no compute hosts" in placed(Picture(), request()).explain()


def test_zone_and_requested_host_narrow_the_choice() -> None:
    east = Aggregate(id=1, name="e", hosts=frozenset({"h2", "h3"}), metadata={"availability_zone": "east"})
    picture = Picture([node(1), node(2), node(3)], [east])
    assert hosts_of(placed(picture, request(availability_zone="east"))) == ["h2", "h3"]
    assert hosts_of(placed(picture, request(availability_zone="nova"))) == ["h1"]
    assert hosts_of(placed(picture, request(availability_zone="west"))) == []
    assert hosts_of(placed(picture, request(host="h1"))) == ["h1"]
    assert hosts_of(placed(picture, request(node="n2"))) == ["h2"]
    assert hosts_of(placed(picture, request(host="h1", node="n2"))) == []
    assert {c.availability_zone for c in placed(picture, request(host="h3")).candidates} == {"east"}


def test_a_forced_host_goes_before_filters_but_not_before_room_and_life() -> None:
    picture = picture_of(node(1), node(2), node(3, vcpus_used=4), down=(2,), disabled=(1,))
    wanted = {"availability_zone": "west", "required_traits": ("CUSTOM_A",), "forced": True}
    assert hosts_of(placed(picture, request(host="h1", **wanted))) == ["h1"]
    assert hosts_of(placed(picture, request(host="h1"))) == []
    assert hosts_of(placed(picture, request(host="h2", **wanted))) == []
    assert hosts_of(placed(picture, request(host="h3", **wanted))) == []


def test_excluded_nodes_are_left_out() -> None:
    assert [c.node_id for c in placed(Picture([node(1), node(2)]), request(exclude_nodes=(1,))).candidates] == [2]


def test_what_was_given_away_is_deducted_until_the_database_shows_it() -> None:
    picture = Picture([node(1, vcpus_max=2)])
    assert placed(picture, request()).candidates
    assert placed(picture, request()).candidates
    assert not placed(picture, request()).candidates
    assert list(picture.taken) == [1]
    picture.put([node(1, vcpus_max=2, vcpus_used=1, memory_mb_used=512, disk_gb_used=1)])
    assert picture.taken == {}
    assert placed(picture, request()).candidates


def test_a_burst_over_equal_hosts_spreads() -> None:
    picture = Picture([node(n, vcpus_max=100, memory_mb_max=100_000, disk_gb_max=1000) for n in range(10)])
    chance = random.Random(7)
    firsts = Counter(place(picture, request(), RULES, chance).candidates[0].host for _ in range(100))
    assert len(firsts) == 10
    assert max(firsts.values()) <= 2 * 100 // 10


def test_custom_resources_are_claimed_like_the_others() -> None:
    picture = Picture([node(1), node(2, resources={"CUSTOM_GPU": (2, 1)})])
    gpu = request(resources={"CUSTOM_GPU": 1})
    assert hosts_of(placed(picture, gpu)) == ["h2"]
    assert not placed(picture, gpu).candidates
    assert "CUSTOM_GPU" in (placed(picture, gpu).nearest or "")


def test_hosts_come_and_go() -> None:
    picture = Picture([node(1), node(2, resources={"CUSTOM_GPU": (1, 0)})])
    picture.put([node(3), node(1, vcpus_used=4)])
    picture.keep([2, 3])
    assert hosts_of(placed(picture, request())) == ["h2", "h3"]
    assert picture.number("id").tolist() == [2, 3]
    assert picture.resources["CUSTOM_GPU"][0].tolist() == [1, 0]
    picture.set_io_ops({"h3": 5})
    assert picture.number("io_ops").tolist()[1] == 5


def test_builds_elsewhere_do_not_take_back_what_was_given_away_here() -> None:
    picture = Picture([node(1), node(2)])
    picture.set_io_ops({"h1": 2})
    picture.take(0, request())
    picture.set_io_ops({"h1": 2, "h2": 1})
    assert picture.number("io_ops").tolist() == [3, 1]
    picture.put([node(1)])
    assert picture.number("io_ops").tolist() == [2, 1]


def test_group_policies_narrow_the_choice() -> None:
    picture = Picture([node(n) for n in range(3)])
    anti = Group(policy="anti-affinity", max_server_per_host=2, members={"h0": 2, "h1": 1})
    assert hosts_of(placed(picture, request(group=anti))) == ["h1", "h2"]
    together = Group(policy="affinity", members={"h1": 1, "h2": 0})
    assert hosts_of(placed(picture, request(group=together))) == ["h1"]
    assert len(hosts_of(placed(picture, request(group=Group(policy="affinity"))))) == 3


def test_a_third_partys_filter_is_found_by_its_path_and_asked_for_each_host() -> None:
    by = make_rules(
        SchedulerOptions(
            enabled_filters=("OddHosts",), available_filters=(ALL_FILTERS, f"{__name__}.OddHosts")
        )
    )  # fmt: skip
    placement = placed(Picture([node(n) for n in range(4)]), request(), by)
    assert hosts_of(placement) == ["h1", "h3"]


class OddHosts(HostFilter):
    name = "OddHosts"

    def host_passes(self, host: HostView, request: PlacementRequest) -> bool:
        return host.node.id % 2 == 1 and host.free_vcpus > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"enabled_filters": ("ComputFilter",)}, "enabled_filters.*ComputFilter"),
        ({"available_filters": ("nowhere.At.all",)}, "available_filters.*nowhere"),
        ({"weight_classes": ("kilonova.errors.Invalid",)}, "weight_classes.*no weigher"),
    ],
)
def test_names_that_are_not_known_stop_the_start(options: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        make_rules(SchedulerOptions(**options))  # type: ignore[arg-type]


def test_names_as_operators_write_them_are_known() -> None:
    by = rules("nova.scheduler.filters.compute_filter.ComputeFilter", "RamFilter", "AggregateIoOpsFilter")
    names = [one.name for one in by.filters]
    assert names.count("ComputeFilter") == 1
    assert "AggregateIoOpsFilter" in names


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8192), st.booleans(), st.booleans()), max_size=20),
    st.integers(1, 8),
    st.integers(1, 8192),
    st.integers(1, 6),
    st.booleans(),
)
def test_a_candidate_always_fits_and_reasons_add_up(
    hosts: list[tuple[int, int, bool, bool]], vcpus: int, memory_mb: int, subset: int, shuffle: bool
) -> None:
    nodes = [node(i, vcpus_max=v, memory_mb_max=m) for i, (v, m, _, _) in enumerate(hosts)]
    down = tuple(i for i, host in enumerate(hosts) if not host[2])
    disabled = tuple(i for i, host in enumerate(hosts) if host[2] and not host[3])
    by = rules(host_subset_size=subset, shuffle_best_same_weighed_hosts=shuffle)
    placement = placed(
        picture_of(*nodes, down=down, disabled=disabled), request(vcpus=vcpus, memory_mb=memory_mb), by, 3
    )
    fitting = {i for i, (v, m, up, on) in enumerate(hosts) if up and on and v >= vcpus and m >= memory_mb}
    assert {c.node_id for c in placement.candidates} <= fitting
    assert bool(placement.candidates) == bool(fitting)
    assert len({c.node_id for c in placement.candidates}) == len(placement.candidates) == min(3, len(fitting))
    assert sum(count for _, count in placement.removed) == len(nodes) - len(fitting)
    assert (placement.nearest is None) == (bool(fitting) or not hosts)
