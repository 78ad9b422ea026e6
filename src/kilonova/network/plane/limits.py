"""Bandwidth limits of guests' ports, by the kernel's traffic control on their taps."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from kilonova.network.plan import Limit, Plan
from kilonova.network.plane import names
from kilonova.network.plane.shell import Shell

_LEAST_BURST = 32
"""Kbit: less than some packets of the greatest size and nothing passes."""
_WAIT = "50ms"
"""The longest that a packet to a guest waits before it is dropped."""


class _Pair(NamedTuple):
    to_guest: Limit | None
    from_guest: Limit | None


class Limits:
    """Remembers what it has set, and sets it again on a tap that was away meanwhile."""

    def __init__(self, shell: Shell, space: str) -> None:
        self._shell = shell
        self._space = space
        self._set: dict[str, _Pair] = {}

    def apply(self, plan: Plan, plugged: Collection[str]) -> None:
        wanted = {port.id: _Pair(port.to_guest, port.from_guest) for port in plan.ports if port.id in plugged}
        for port_id, pair in wanted.items():
            if pair != self._set.get(port_id, _Pair(None, None)):
                self._set.pop(port_id, None)
                self._clear(port_id)
                self._shell.change(self._space, commands(names.tap(port_id), *pair), program="tc")
            self._set[port_id] = pair
        for port_id in set(self._set) - set(wanted):
            del self._set[port_id]

    def _clear(self, port_id: str) -> None:
        device = names.tap(port_id)
        shown = self._shell.run("tc", "-n", self._space, "qdisc", "show", "dev", device)
        kinds = {line.split()[1] for line in shown.splitlines() if line}
        found = [words for kind, words in (("tbf", "root"), ("ingress", "ingress")) if kind in kinds]
        self._shell.change(self._space, [f"qdisc del dev {device} {words}" for words in found], program="tc")


def commands(device: str, to_guest: Limit | None, from_guest: Limit | None) -> list[str]:
    """Of `tc`, for a tap without any limit: what leaves the tap goes to the guest."""
    found = []
    if to_guest is not None:
        found.append(
            f"qdisc add dev {device} root tbf rate {to_guest.rate}kbit burst {_burst(to_guest)}kbit latency {_WAIT}"
        )
    if from_guest is not None:
        found.append(f"qdisc add dev {device} ingress")
        found.append(
            f"filter add dev {device} parent ffff: protocol all prio 1 matchall "
            f"action police rate {from_guest.rate}kbit burst {_burst(from_guest)}kbit conform-exceed drop"
        )
    return found


def _burst(limit: Limit) -> int:
    # What Neutron's own drivers take where nobody says: four fifths of the rate.
    return max(limit.burst or limit.rate * 4 // 5, _LEAST_BURST)
