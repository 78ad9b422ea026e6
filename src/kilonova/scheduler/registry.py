"""Filters and weighers by the names that operators write; third parties' by entry points."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from kilonova.errors import Invalid
from kilonova.scheduler.filters import aggregates, basic, hardware, json_query, load, wishes
from kilonova.scheduler.filters.base import Filter
from kilonova.scheduler.options import ALL_FILTERS, ALL_WEIGHERS, SchedulerOptions
from kilonova.scheduler.weighers import standard
from kilonova.scheduler.weighers.base import Weigher

T = TypeVar("T", type[Filter], type[Weigher])

FILTER_GROUP = "kilonova.scheduler.filters"
WEIGHER_GROUP = "kilonova.scheduler.weighers"

FILTERS: dict[str, type[Filter]] = {
    one.name: one
    for one in (
        basic.ComputeFilter,
        basic.AvailabilityZoneFilter,
        hardware.ComputeCapabilitiesFilter,
        hardware.ImagePropertiesFilter,
        hardware.NUMATopologyFilter,
        aggregates.AggregateInstanceExtraSpecsFilter,
        aggregates.AggregateImagePropertiesIsolation,
        aggregates.AggregateMultiTenancyIsolation,
        aggregates.AggregateTypeAffinityFilter,
        load.NumInstancesFilter,
        load.AggregateNumInstancesFilter,
        load.IoOpsFilter,
        load.AggregateIoOpsFilter,
        load.MetricsFilter,
        wishes.SameHostFilter,
        wishes.DifferentHostFilter,
        wishes.SimpleCIDRAffinityFilter,
        wishes.ServerGroupAntiAffinityFilter,
        wishes.ServerGroupAffinityFilter,
        wishes.IsolatedHostsFilter,
        json_query.JsonFilter,
    )
}
ALWAYS: tuple[type[Filter], ...] = (
    *basic.ALWAYS,
    hardware.NUMATopologyFilter,
    wishes.ServerGroupAntiAffinityFilter,
    wishes.ServerGroupAffinityFilter,
    aggregates.TenantAggregates,
    aggregates.TraitsAggregates,
)
"""In force whether they are enabled or not: claims check most of it again."""
ALWAYS_CHECKED = frozenset(
    ("AllHostsFilter", "RetryFilter", "CoreFilter", "RamFilter", "DiskFilter", "PciPassthroughFilter")
)  # fmt: skip
"""May be enabled: what they check is always checked."""

WEIGHERS: dict[str, type[Weigher]] = {
    one.name: one
    for one in (
        standard.CPUWeigher,
        standard.RAMWeigher,
        standard.DiskWeigher,
        standard.IoOpsWeigher,
        standard.NumInstancesWeigher,
        standard.BuildFailureWeigher,
        standard.HypervisorVersionWeigher,
        standard.ServerGroupSoftAffinityWeigher,
        standard.ServerGroupSoftAntiAffinityWeigher,
        standard.PCIWeigher,
        standard.MetricsWeigher,
    )
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides: filters in their order, weighers, and the options."""

    filters: tuple[Filter, ...]
    weighers: tuple[Weigher, ...]
    options: SchedulerOptions

    def has(self, name: str) -> bool:
        return any(one.name == name for one in self.filters)


def make_rules(options: SchedulerOptions) -> Rules:
    """Raises Invalid for a name that is not known, with the option that has it."""
    available = _available_filters(options)
    chosen: list[type[Filter]] = list(ALWAYS)
    for name in options.enabled_filters:
        short = name.rsplit(".", 1)[-1]
        if short in ALWAYS_CHECKED:
            continue
        if short not in available:
            raise Invalid(
                f"Configuration: [filter_scheduler] enabled_filters: '{name}' is not known; "
                f"known are {', '.join(sorted({*available, *ALWAYS_CHECKED}))}."
            )
        if available[short] not in chosen:
            chosen.append(available[short])
    if options.metrics_weight_setting and options.metrics_required and load.MetricsFilter not in chosen:
        chosen.append(load.MetricsFilter)
    weighers = _weighers(options.weight_classes)
    return Rules(tuple(one(options) for one in chosen), tuple(one(options) for one in weighers), options)


def _available_filters(options: SchedulerOptions) -> dict[str, type[Filter]]:
    found: dict[str, type[Filter]] = {}
    for name in options.available_filters:
        if name == ALL_FILTERS:
            found |= FILTERS
            found |= _by_entry_point(FILTER_GROUP, Filter)
        else:
            one = _named(name, FILTERS, FILTER_GROUP, Filter, "[filter_scheduler] available_filters")
            found[one.name] = one
    return found


def _weighers(names: Sequence[str]) -> list[type[Weigher]]:
    found: list[type[Weigher]] = []
    for name in names:
        if name == ALL_WEIGHERS:
            found += [*WEIGHERS.values(), *_by_entry_point(WEIGHER_GROUP, Weigher).values()]
        else:
            found.append(_named(name, WEIGHERS, WEIGHER_GROUP, Weigher, "[filter_scheduler] weight_classes"))
    return list(dict.fromkeys(found))


@functools.cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    """Looking through all that is installed takes its time."""
    return tuple(entry_points(group=group))


def _by_entry_point(group: str, kind: Any) -> dict[str, Any]:
    found = {}
    for point in _points(group):
        one = point.load()
        if not (isinstance(one, type) and issubclass(one, kind)):
            raise Invalid(f"The entry point '{point.name}' of {group} is no {kind.__name__}.")
        found[point.name] = one
    return found


def _named(name: str, ours: dict[str, T], group: str, kind: Any, option: str) -> T:
    """A class by its short name, by Nova's path to it, by an entry point's name, or by a path of its own."""
    short = name.rsplit(".", 1)[-1]
    if name in ours or (name.startswith("nova.") and short in ours):
        return ours[short]
    for point in _points(group):
        if point.name == name:
            loaded: T = point.load()
            return loaded
    module, _, attribute = name.rpartition(".")
    try:
        one = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError) as error:
        raise Invalid(f"Configuration: {option}: '{name}' cannot be loaded: {error}.") from error
    if not (isinstance(one, type) and issubclass(one, kind)):
        raise Invalid(f"Configuration: {option}: '{name}' is no {kind.__name__.lower()}.")
    found: Any = one
    return found  # type: ignore[no-any-return]
