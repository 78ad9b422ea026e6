"""Filters by the metadata of the aggregates that a host is in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kilonova.scheduler.filters.base import Filter
from kilonova.scheduler.filters.match import matches
from kilonova.scheduler.node import Aggregate
from kilonova.scheduler.picture import Bools, Picture, merged_metadata
from kilonova.scheduler.request import PlacementRequest

SCOPE = "aggregate_instance_extra_specs"
TENANT = "filter_tenant_id"
FLAVOR = "instance_type"

Aggregates = tuple[Aggregate, ...]


class _ByAggregates(Filter):
    """A verdict that depends on nothing but a host's aggregates: asked once for each set of them."""

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        return picture.aggregates().where(lambda mine: self.refusal(mine, request) is None)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return self.refusal(picture.aggregates().of(row), request) or "passes"

    def refusal(self, mine: Aggregates, request: PlacementRequest) -> str | None:
        raise NotImplementedError


def _extra_specs(request: PlacementRequest) -> Iterator[tuple[str, str]]:
    for key, wanted in request.extra_specs.items():
        scope, colon, rest = key.partition(":")
        if not colon:
            yield key, wanted
        elif scope == SCOPE:
            yield rest, wanted


class AggregateInstanceExtraSpecsFilter(_ByAggregates):
    name = "AggregateInstanceExtraSpecsFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        return super().mask(picture, request) if any(True for _ in _extra_specs(request)) else None

    def refusal(self, mine: Aggregates, request: PlacementRequest) -> str | None:
        metadata = merged_metadata(mine)
        for key, wanted in _extra_specs(request):
            values = metadata.get(key)
            if not values:
                return f"is in no aggregate with '{key}', which the flavor asks to be {wanted!r}"
            if not any(matches(value, wanted) for value in values):
                return f"is in aggregates with {key} = {', '.join(sorted(values))}; the flavor asks {wanted!r}"
        return None


class AggregateImagePropertiesIsolation(_ByAggregates):
    name = "AggregateImagePropertiesIsolation"

    def refusal(self, mine: Aggregates, request: PlacementRequest) -> str | None:
        namespace = self.options.aggregate_image_properties_isolation_namespace
        prefix = f"{namespace}{self.options.aggregate_image_properties_isolation_separator}" if namespace else ""
        for key, values in sorted(merged_metadata(mine).items()):
            value = request.image_properties.get(key)
            if key.startswith(prefix) and value and value not in values:
                return f"is kept for images with {key} = {', '.join(sorted(values))}, this one has {value}"
        return None


def _tenants(mine: Aggregates) -> set[str]:
    found: set[str] = set()
    for key, values in merged_metadata(mine).items():
        if key.startswith(TENANT):
            found |= values
    return found


class AggregateMultiTenancyIsolation(_ByAggregates):
    name = "AggregateMultiTenancyIsolation"

    def refusal(self, mine: Aggregates, request: PlacementRequest) -> str | None:
        tenants = _tenants(mine)
        return "is kept for other projects" if tenants and request.project_id not in tenants else None


class AggregateTypeAffinityFilter(_ByAggregates):
    name = "AggregateTypeAffinityFilter"

    def refusal(self, mine: Aggregates, request: PlacementRequest) -> str | None:
        flavors = merged_metadata(mine).get(FLAVOR)
        if flavors and request.flavor_name not in flavors:
            return f"is kept for servers of the flavors {', '.join(sorted(flavors))}"
        return None


class TenantAggregates(Filter):
    """[scheduler] limit_tenants_to_placement_aggregate: a project that has aggregates of its own stays within them."""

    name = "aggregates of the project"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        if not self.options.limit_tenants_to_placement_aggregate:
            return None
        column = picture.aggregates()
        mine = column.where(lambda aggregates: request.project_id in _tenants(aggregates))
        if not mine.any() and not self.options.placement_aggregate_required_for_tenants:
            return None
        return mine

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return "is in no aggregate of this project"


class TraitsAggregates(_ByAggregates):
    """[scheduler] enable_isolated_aggregate_filtering: who does not ask all traits of an aggregate stays out of it."""

    name = "aggregates with traits"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        return super().mask(picture, request) if self.options.enable_isolated_aggregate_filtering else None

    def refusal(self, mine: Aggregates, request: PlacementRequest) -> str | None:
        required: Any = {f"trait:{trait}" for trait in request.required_traits}
        for aggregate in mine:
            for key, value in sorted(aggregate.metadata.items()):
                if key.startswith("trait:") and value == "required" and key not in required:
                    return f"is kept for servers that require {key.removeprefix('trait:')}"
        return None
