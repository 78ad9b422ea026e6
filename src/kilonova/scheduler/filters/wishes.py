"""Filters by what the request's hints say, by its server group, and by lists of the operator's."""

from __future__ import annotations

import ipaddress

import numpy as np

from kilonova.scheduler.filters.base import Filter
from kilonova.scheduler.picture import Bools, Picture
from kilonova.scheduler.request import AFFINITY, ANTI_AFFINITY, PlacementRequest


class SameHostFilter(Filter):
    name = "SameHostFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        return None if request.same_hosts is None else picture.on_hosts(request.same_hosts)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return "has none of the servers that same_host names"


class DifferentHostFilter(Filter):
    name = "DifferentHostFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        return ~picture.on_hosts(request.different_hosts) if request.different_hosts else None

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return "has a server that different_host names"


class SimpleCIDRAffinityFilter(Filter):
    name = "SimpleCIDRAffinityFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        if request.near_ip is None:
            return None
        network = near_network(request.near_ip, request.cidr)
        return picture.column("address", lambda node: node.host_ip).where(lambda text: _within(text, network))

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return f"is not near {request.near_ip}{request.cidr}"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def near_network(address: str, prefix: str) -> Network | None:
    """The network of an address with a prefix like '/24'; None when they make none."""
    try:
        return ipaddress.ip_network(f"{address}/{prefix.lstrip('/')}", strict=False)
    except ValueError:
        return None


def _within(text: str, network: Network | None) -> bool:
    try:
        return network is not None and ipaddress.ip_address(text) in network
    except ValueError:
        return False


class ServerGroupAntiAffinityFilter(Filter):
    name = "ServerGroupAntiAffinityFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        group = request.group
        if group is None or group.policy != ANTI_AFFINITY:
            return None
        return ~picture.on_hosts(host for host, count in group.members.items() if count >= group.max_server_per_host)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        assert request.group is not None
        count = request.group.members.get(picture.nodes[row].host, 0)
        return f"has {count} of the group's servers already; {request.group.max_server_per_host} may be on one host"


class ServerGroupAffinityFilter(Filter):
    name = "ServerGroupAffinityFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        group = request.group
        if group is None or group.policy != AFFINITY:
            return None
        hosts = [host for host, count in group.members.items() if count]
        return picture.on_hosts(hosts) if hosts else None

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        return "is not where the servers of the group are"


class IsolatedHostsFilter(Filter):
    name = "IsolatedHostsFilter"

    def mask(self, picture: Picture, request: PlacementRequest) -> Bools | None:
        options = self.options
        if not options.isolated_hosts and not options.isolated_images:
            return None
        isolated = picture.on_hosts(options.isolated_hosts)
        if request.image_id in options.isolated_images:
            return isolated
        if options.restrict_isolated_hosts_to_isolated_images:
            return ~isolated
        return np.ones(len(picture), dtype=np.bool_)

    def why(self, picture: Picture, row: int, request: PlacementRequest) -> str:
        if request.image_id in self.options.isolated_images:
            return "is not one of the hosts kept for this image"
        return "is kept for other images"
