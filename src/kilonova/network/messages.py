"""What travels between the role `network` and the planes (`plane.<host>`); any of it may be lost."""

from __future__ import annotations

import msgspec

ROLE = "network"


def plane_address(host: str) -> str:
    return f"plane.{host}"


GREETING_PERIOD = 5.0
"""Seconds between two greetings of a plane."""


class PlaneGreeting(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Plane -> role, at its start and every GREETING_PERIOD: it lives, and this is the plan that it has."""

    host: str
    incarnation: str
    """Changes at each start."""
    plan: str = ""
    """The digest of the plan that it works on; empty: it has none."""
    tunnel_ip: str | None = None
    """Where other hosts' VXLAN packets reach it."""


class PlanePlan(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Role -> plane: all that the host should have."""

    host: str
    digest: str
    content: msgspec.Raw


class PlaneReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Plane -> role: all that the host has. Upon every plan, at every change, and now and then, for one may be lost."""

    host: str
    incarnation: str
    ports: list[str] = []
    """Wired: the device is in its bridge, and its rules are in."""
    routers: dict[str, str] = {}
    """Statuses (ACTIVE, ERROR) by id."""
    floatingips: dict[str, str] = {}


NetworkMessage = PlaneGreeting | PlanePlan | PlaneReport
