"""Filters on how much a host has to do."""

from __future__ import annotations

from kilonova.scheduler.filters.base import Filter
from kilonova.scheduler.picture import Bools, Picture, smallest_number
from kilonova.scheduler.request import PlacementRequest


class _Bound(Filter):
    """A column of the picture that has to stay below a bound, which aggregates may set."""

    column: str
    option: str
    what: str
    by_aggregates = False

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        mask: Bools
        if self.by_aggregates:
            mask = picture.number(self.column) < picture.aggregates().map(
                lambda mine: smallest_number(mine, self.option, self.bound)
            )
        else:
            mask = picture.number(self.column) < self.bound
        return mask

    @property
    def bound(self) -> int:
        return int(getattr(self.options, self.option))

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        bound: float = self.bound
        if self.by_aggregates:
            bound = smallest_number(picture.aggregates().of(row), self.option, bound)
        return f"has {int(picture.number(self.column)[row])} {self.what}; {bound:g} are allowed"


class NumInstancesFilter(_Bound):
    name = "NumInstancesFilter"
    column, option, what = "running_vms", "max_instances_per_host", "servers"


class AggregateNumInstancesFilter(NumInstancesFilter):
    name = "AggregateNumInstancesFilter"
    by_aggregates = True


class IoOpsFilter(_Bound):
    name = "IoOpsFilter"
    column, option, what = "io_ops", "max_io_ops_per_host", "servers being built or moved"


class AggregateIoOpsFilter(IoOpsFilter):
    name = "AggregateIoOpsFilter"
    by_aggregates = True


class MetricsFilter(Filter):
    name = "MetricsFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        wanted = {name for name, _ in self.options.metrics_weight_setting}
        if not wanted:
            return None
        column = picture.column("metrics", lambda node: frozenset(node.metrics))
        return column.where(lambda names: wanted <= names)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        missing = {name for name, _ in self.options.metrics_weight_setting} - picture.nodes[row].metrics.keys()
        return f"does not report {', '.join(sorted(missing))}"
