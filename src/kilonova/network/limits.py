"""Bandwidth limits of a QoS policy. Pure."""

from __future__ import annotations

from kilonova.network.plan import Limit
from kilonova.network.rest import Document


def of(policy: Document | None) -> tuple[Limit | None, Limit | None]:
    """(to the guest, from the guest)."""
    found: dict[str, Limit] = {}
    for rule in (policy or {}).get("rules") or ():
        if rule.get("type") == "bandwidth_limit":
            limit = Limit(rate=rule["max_kbps"], burst=rule.get("max_burst_kbps") or 0)
            found[rule.get("direction") or "egress"] = limit
    return found.get("ingress"), found.get("egress")
