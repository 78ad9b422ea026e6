"""Hosts for tests of the scheduler."""

from __future__ import annotations

import random
from typing import Any

from kilonova.scheduler.node import Node
from kilonova.scheduler.options import SchedulerOptions
from kilonova.scheduler.pick import place
from kilonova.scheduler.picture import Picture
from kilonova.scheduler.registry import Rules, make_rules
from kilonova.scheduler.request import Placement, PlacementRequest

RULES = make_rules(SchedulerOptions())


def node(number: int, **kw: Any) -> Node:
    """Host `h<number>`, with room for four small servers."""
    values: dict[str, Any] = {
        "host": f"h{number}",
        "node": f"n{number}",
        "service_id": number,
        "vcpus_max": 4,
        "memory_mb_max": 4096,
        "disk_gb_max": 100,
    }
    return Node(id=number, **(values | kw))


def request(**kw: Any) -> PlacementRequest:
    return PlacementRequest(**({"vcpus": 1, "memory_mb": 512, "disk_gb": 1} | kw))


def rules(*filters: str, **options: Any) -> Rules:
    return make_rules(SchedulerOptions(enabled_filters=filters, **options))


def placed(picture: Picture, asked: PlacementRequest, by: Rules = RULES, seed: int = 1) -> Placement:
    return place(picture, asked, by, random.Random(seed))


def hosts_of(placement: Placement) -> list[str]:
    return sorted(candidate.host for candidate in placement.candidates)
