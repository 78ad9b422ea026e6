"""What a filter is. One of a third party comes by an entry point of the group `kilonova.scheduler.filters`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilonova.scheduler.node import Aggregate, Node
from kilonova.scheduler.options import SchedulerOptions
from kilonova.scheduler.picture import Bools, Picture
from kilonova.scheduler.request import PlacementRequest


class Filter(ABC):
    """Works on all hosts at once. Made once, with the operator's options."""

    name: ClassVar[str]
    even_forced: ClassVar[bool] = False
    """Whether it is asked also when an administrator forces a host."""

    def __init__(self, options: SchedulerOptions) -> None:
        self.options = options

    @abstractmethod
    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        """Rows that pass; None when the request asks nothing of this filter."""

    @abstractmethod
    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        """Of a row that does not pass, in words that follow 'the host': 'has 512 MiB free'; without its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """One host, for filters that look at one after the other. Memory in MiB, disk in GiB."""

    node: Node
    aggregates: tuple[Aggregate, ...]
    availability_zone: str
    free_vcpus: int
    free_memory_mb: int
    free_disk_gb: int
    num_instances: int
    num_io_ops: int


def view(picture: Picture, row: int) -> HostView:
    node = picture.nodes[row]
    return HostView(
        node=node,
        aggregates=picture.aggregates_of(node.host),
        availability_zone=picture.zone_of(node.host),
        free_vcpus=int(picture.free_vcpus[row]),
        free_memory_mb=int(picture.free_memory_mb[row]),
        free_disk_gb=int(picture.free_disk_gb[row]),
        num_instances=int(picture.number("running_vms")[row]),
        num_io_ops=int(picture.number("io_ops")[row]),
    )


class HostFilter(Filter):
    """Simpler to write, and slower: asked for every host."""

    @abstractmethod
    def host_passes(self, host: HostView, request: PlacementRequest) -> bool: ...

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        return np.array([self.host_passes(view(picture, row), request) for row in range(len(picture))], dtype=np.bool_)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return f"is refused by {self.name}"
