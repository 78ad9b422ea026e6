"""What a weigher is. One of a third party comes by an entry point of the group `kilonova.scheduler.weighers`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kilonova.scheduler.options import SchedulerOptions
from kilonova.scheduler.picture import Floats, Ints, Picture, merged_metadata
from kilonova.scheduler.request import PlacementRequest

Numbers = npt.NDArray[Any]


class Weigher(ABC):
    """Works on all hosts at once. What it says is scaled to 0 ... 1 over the hosts left, times the multiplier."""

    name: ClassVar[str]
    option: ClassVar[str]
    """The multiplier's name, among the options and as a key of aggregates."""
    sign: ClassVar[float] = 1.0
    decisive: ClassVar[bool] = False
    """Whether a host that this says less of is never taken at random for one that it says more of."""

    def __init__(self, options: SchedulerOptions) -> None:
        self.options = options

    @abstractmethod
    def raw(self, picture: Picture, request: PlacementRequest) -> Numbers | None:
        """More is better (with a positive multiplier); None when it has nothing to say of this request."""

    @property
    def multiplier(self) -> float:
        return float(getattr(self.options, self.option, 1.0))

    def weights(self, picture: Picture, request: PlacementRequest, rows: Ints) -> Floats | float:
        """Of these rows; a plain 0 when all are alike."""
        multiplier = self._multipliers(picture)
        if isinstance(multiplier, float) and multiplier == 0.0:
            return 0.0
        values = self.raw(picture, request)
        if values is None:
            return 0.0
        if len(rows) != len(values):
            values = values[rows]
            if not isinstance(multiplier, float):
                multiplier = multiplier[rows]
        low, high = values.min(), values.max()
        if low == high:
            return 0.0
        scaled: Floats = (values - low) * (1.0 / (float(high) - float(low)))
        return scaled * multiplier * self.sign

    def _multipliers(self, picture: Picture) -> Floats | float:
        """Aggregates may have one of their own for their hosts; the smallest of several counts."""
        column = picture.aggregates()
        if not any(self.option in aggregate.metadata for mine in column.values for aggregate in mine):
            return self.multiplier
        return column.map(lambda mine: _own(mine, self.option, self.multiplier))


def _own(mine: Any, key: str, default: float) -> float:
    numbers = []
    for value in merged_metadata(mine).get(key, ()):
        try:
            numbers.append(float(value))
        except ValueError:
            continue
    return min(numbers, default=default)


def counts_on_hosts(picture: Picture, members: dict[str, int]) -> Ints:
    found = np.zeros(len(picture), dtype=np.int64)
    for host, count in members.items():
        found[picture.rows_of_host(host)] = count
    return found
