"""GET /os-availability-zone and /os-availability-zone/detail: zones as the services' hosts make them."""

from __future__ import annotations

from typing import Any

from kilonova.api.requests import Request
from kilonova.compute.hosts import list_services, zone_of
from kilonova.db.hosts import Service


def _by_zone(request: Request, services: list[Service]) -> dict[str, list[Service]]:
    zones: dict[str, list[Service]] = {}
    for service in services:
        zones.setdefault(zone_of(request.runtime, service), []).append(service)
    return zones


def _split(zones: dict[str, list[Service]]) -> tuple[list[str], list[str]]:
    """The zones with an enabled service, and those without."""
    available = {zone for zone, services in zones.items() if any(not service.disabled for service in services)}
    return sorted(available), sorted(zones.keys() - available)


async def index(request: Request) -> dict[str, Any]:
    zones = _by_zone(request, await list_services(request.runtime))
    available, unavailable = _split(zones)
    internal = request.runtime.settings.internal_service_availability_zone
    return {
        "availabilityZoneInfo": [
            {"zoneName": zone, "zoneState": {"available": state}, "hosts": None}
            for names, state in ((available, True), (unavailable, False))
            for zone in names
            if zone != internal
        ]
    }


async def detail(request: Request) -> dict[str, Any]:
    zones = _by_zone(request, await list_services(request.runtime))
    available, unavailable = _split(zones)
    shown: list[dict[str, Any]] = []
    for zone in available:
        hosts: dict[str, dict[str, Any]] = {}
        for service in zones[zone]:
            if not service.disabled:
                seen = service.seen_at
                hosts.setdefault(service.host, {})[service.binary] = {
                    "available": service.up,
                    "active": True,
                    "updated_at": seen.isoformat(timespec="microseconds") if seen else None,
                }
        shown.append({"zoneName": zone, "zoneState": {"available": True}, "hosts": hosts})
    shown += [{"zoneName": zone, "zoneState": {"available": False}, "hosts": None} for zone in unavailable]
    return {"availabilityZoneInfo": shown}
