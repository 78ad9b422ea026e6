"""A router's rules: floating IPs, what goes out under the router's address, the way to the metadata proxy. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kilonova.network.plan import RouterPlan
from kilonova.network.plane import names
from kilonova.network.plane.dhcp import METADATA
from kilonova.network.plane.ruleset import Chain, Ruleset, Set, Table

PROXY_PORT = 9697
_FROM_OUTSIDE = "0x1"


def ruleset(plan: RouterPlan) -> Ruleset:
    """Two tables of the router's namespace."""
    inside = f'"{names.INSIDE}*"'
    outside = f'"{names.OUTSIDE}*"'
    after = [f"oifname {outside} snat to ip saddr map @to-floating"]
    if plan.snat is not None:
        after.append(f"oifname {outside} ip saddr != {plan.snat} snat to {plan.snat}")
        # A guest that asks a neighbour's floating IP gets the answer the way that it asked.
        after.append(f"oifname {inside} ct status dnat meta mark != {_FROM_OUTSIDE} snat to {plan.snat}")
    nat = Table(
        {
            "arriving": Chain(
                (f"iifname {outside} meta mark set {_FROM_OUTSIDE}",),
                hook="type filter hook prerouting priority -150; policy accept;",
            ),
            "translated": Chain(
                (
                    f"iifname {inside} ip daddr {METADATA} tcp dport 80 redirect to :{PROXY_PORT}",
                    "dnat to ip daddr map @to-fixed",
                ),
                hook="type nat hook prerouting priority -100; policy accept;",
            ),
            "leaving": Chain(tuple(after), hook="type nat hook postrouting priority 100; policy accept;"),
        },
        {
            "to-fixed": _map((each.address, each.fixed) for each in plan.floating),
            "to-floating": _map((each.fixed, each.address) for each in plan.floating),
        },
    )
    switch = Table(
        {
            "for-us": Chain(
                (f"tcp dport {PROXY_PORT} ct status != dnat drop",),
                hook="type filter hook input priority 0; policy accept;",
            ),
            "through": Chain(() if plan.up else ("drop",), hook="type filter hook forward priority 0; policy accept;"),
        }
    )
    return {("ip", "kilonova"): nat, ("inet", "kilonova"): switch}


def _map(pairs: Iterable[tuple[str, str]]) -> Set:
    return Set("map", "type ipv4_addr : ipv4_addr;", frozenset(f"{key} : {value}" for key, value in pairs))
