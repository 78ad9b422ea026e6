"""From what the planes have done to what Neutron must be told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kilonova.network.rest import Document
from kilonova.network.upkeep import ROUTER_OWNERS, Documents, elsewhere

ACTIVE, DOWN = "ACTIVE", "DOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneState:
    """What one host's plane says that it has: whole, not a difference."""

    ports: frozenset[str] = frozenset()
    """Wired: their devices are in their bridges, with their rules."""
    routers: Mapping[str, str] = field(default_factory=dict)
    """Statuses by id."""
    floatingips: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Differences:
    """What to report; empty when Neutron knows it all."""

    ports: list[dict[str, str]] = field(default_factory=list)
    routers: dict[str, str] = field(default_factory=dict)
    floatingips: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ports or self.routers or self.floatingips)

    def first(self, most: int) -> Differences:
        """A part of it, ports first: a boot waits for them."""
        ports = self.ports[:most]
        routers = dict(list(self.routers.items())[: most - len(ports)])
        floatingips = dict(list(self.floatingips.items())[: most - len(ports) - len(routers)])
        return Differences(ports=ports, routers=routers, floatingips=floatingips)


def differences(
    documents: Documents, planes: Mapping[str, PlaneState], told: Iterable[tuple[str, str]] = ()
) -> Differences:
    """`planes`: of the hosts that have reported. `told`: (port, host) pairs of ports that are wired where they are not
    bound (a migration's destination) and that Compute has been told about.
    """
    found = Differences()
    told = set(told)
    arriving = elsewhere(documents)
    ports = documents["ports"]
    for port in ports.values():
        wanted = _port(port, planes)
        if wanted is not None:
            found.ports.append({"id": port["id"], "host": port["binding:host_id"], "status": wanted})
    for host, plane in planes.items():
        for port_id in plane.ports:
            moving = ports.get(port_id)
            # A host that says it has wired a port which nobody moves there is not believed.
            if (
                moving is not None
                and host in arriving.get(port_id, ())
                and _of_server(moving)
                and (port_id, host) not in told
            ):
                found.ports.append({"id": port_id, "host": host, "status": ACTIVE})
    where = {
        port["device_id"]: planes[port["binding:host_id"]]
        for port in ports.values()
        if port["device_owner"] in ROUTER_OWNERS and port.get("binding:host_id") in planes
    }
    for router in documents["routers"].values():
        plane_of = where.get(router["id"])
        status = plane_of.routers.get(router["id"], router["status"]) if plane_of else router["status"]
        if status != router["status"]:
            found.routers[router["id"]] = status
    for floating in documents["floatingips"].values():
        status = _floating(floating, where)
        if status != floating["status"]:
            found.floatingips[floating["id"]] = status
    return found


def _port(port: Document, planes: Mapping[str, PlaneState]) -> str | None:
    """The status that the port should have, None if it has it or nobody knows."""
    plane = planes.get(port.get("binding:host_id") or "")
    if plane is None or port.get("binding:vif_type") != "bridge":
        return None
    wanted = ACTIVE if port["id"] in plane.ports and port["admin_state_up"] else DOWN
    return wanted if (wanted == ACTIVE) != (port["status"] == ACTIVE) else None


def _floating(floating: Document, where: Mapping[str, PlaneState]) -> str:
    if not floating.get("port_id"):
        return DOWN
    plane = where.get(floating.get("router_id") or "")
    # As long as nobody knows how its router is, it stays as it was.
    return plane.floatingips.get(floating["id"], DOWN) if plane else str(floating["status"])


def _of_server(port: Document) -> bool:
    return str(port["device_owner"]).startswith("compute:")
