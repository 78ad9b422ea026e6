"""The plan of a host without a data plane: what it would have, by id. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from kilonova.network.role import PlaneHost
from kilonova.network.upkeep import ROUTER_OWNERS, Documents, elsewhere


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """Ids, sorted."""

    ports: list[str]
    routers: list[str]
    floatingips: list[str]


def outlines(documents: Documents, hosts: Mapping[str, PlaneHost]) -> Mapping[str, Outline]:
    """Each host's ports, and the routers and floating IPs whose router ports are bound there."""
    ports, routers, floatingips = defaultdict(list), defaultdict(set), defaultdict(list)
    where: dict[str, str] = {}
    also = elsewhere(documents)
    for port in documents["ports"].values():
        host = port.get("binding:host_id")
        if host is not None and host in hosts:
            ports[host].append(port["id"])
            for other in also.get(port["id"], ()):
                ports[other].append(port["id"])
            if port["device_owner"] in ROUTER_OWNERS:
                routers[host].add(port["device_id"])
                where[port["device_id"]] = host
    for floating in documents["floatingips"].values():
        if floating["port_id"] and floating["router_id"] in where:
            floatingips[where[floating["router_id"]]].append(floating["id"])
    return {
        host: Outline(ports=sorted(ports[host]), routers=sorted(routers[host]), floatingips=sorted(floatingips[host]))
        for host in hosts
    }
