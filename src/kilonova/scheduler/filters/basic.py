"""Filters that are always in force: what the claim checks again, and where the server may be at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kilonova.scheduler.filters.base import Filter
from kilonova.scheduler.picture import DISABLED, Bools, Ints, Picture
from kilonova.scheduler.request import PlacementRequest


class ComputeFilter(Filter):
    name = "ComputeFilter"
    even_forced = True

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        if not request.forced:
            return picture.usable
        # A host that takes no servers now is tried out by forcing one onto it; nothing can be forced onto a dead one.
        mask = picture.usable.copy()
        for row in np.flatnonzero(~mask).tolist():
            mask[row] = picture.why_unusable(row) == DISABLED
        return mask

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return f"has a compute service that is {picture.why_unusable(row)}"


class RequestedHost(Filter):
    name = "the requested host"
    even_forced = True

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        if request.host is None and request.node is None:
            return None
        everywhere = np.ones(len(picture), dtype=np.bool_)
        mask = everywhere if request.host is None else picture.on_hosts([request.host])
        if request.node is not None:
            for row in np.flatnonzero(mask).tolist():
                mask[row] = picture.nodes[row].node == request.node
        return mask

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return "is not the one that is asked for"


class ExcludedNodes(Filter):
    name = "failed before"
    even_forced = True

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        if not request.exclude_nodes:
            return None
        mask: Bools = ~np.isin(picture.number("id"), request.exclude_nodes)
        return mask

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return "was tried already"


class AvailabilityZoneFilter(Filter):
    name = "AvailabilityZoneFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        wanted = request.availability_zone
        if wanted is None:
            return None
        return picture.zones().where(lambda zone: bool(zone == wanted))

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return f"is in availability zone '{picture.zones().of(row)}', not in '{request.availability_zone}'"


class _Room(Filter):
    """Something that is counted; `what` it is in words."""

    even_forced = True
    free: Callable[[Picture], Ints]
    wanted: Callable[[PlacementRequest], int]
    what: str

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        wanted = type(self).wanted(request)
        if not wanted:
            return None
        mask: Bools = type(self).free(picture) >= wanted
        return mask

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        free = max(0, int(type(self).free(picture)[row]))
        return f"has {free} {self.what} free of the {type(self).wanted(request)} that are needed"


class Vcpus(_Room):
    name = "not enough vCPUs"
    free = staticmethod(lambda picture: picture.free_vcpus)
    wanted = staticmethod(lambda request: request.vcpus)
    what = "vCPUs"


class Memory(_Room):
    name = "not enough memory"
    free = staticmethod(lambda picture: picture.free_memory_mb)
    wanted = staticmethod(lambda request: request.memory_mb)
    what = "MiB of memory"


class Disk(_Room):
    name = "not enough disk"
    free = staticmethod(lambda picture: picture.free_disk_gb)
    wanted = staticmethod(lambda request: request.disk_gb)
    what = "GiB of disk"


class OtherResources(Filter):
    name = "not enough of other resources"
    even_forced = True

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        if not request.resources:
            return None
        mask = np.ones(len(picture), dtype=np.bool_)
        for kind, amount in request.resources.items():
            pair = picture.resources.get(kind)
            mask &= (pair[0] - pair[1] >= amount) if pair is not None else amount <= 0
        return mask

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        for kind, amount in sorted(request.resources.items()):
            pair = picture.resources.get(kind)
            free = int(pair[0][row] - pair[1][row]) if pair is not None else 0
            if free < amount:
                return f"has {max(free, 0)} {kind} free of the {amount} that are needed"
        return "has enough"


class Traits(Filter):
    name = "traits"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        required, forbidden = frozenset(request.required_traits), frozenset(request.forbidden_traits)
        if not required and not forbidden:
            return None
        return picture.traits().where(lambda traits: required <= traits and not forbidden & traits)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        traits = picture.traits().of(row)
        missing = sorted(set(request.required_traits) - traits)
        if missing:
            return f"lacks the trait {missing[0]}"
        return f"has the forbidden trait {min(set(request.forbidden_traits) & traits)}"


ALWAYS: tuple[type[Filter], ...] = (
    RequestedHost, ComputeFilter, AvailabilityZoneFilter, Traits, Vcpus, Memory, Disk, OtherResources, ExcludedNodes,
)  # fmt: skip
