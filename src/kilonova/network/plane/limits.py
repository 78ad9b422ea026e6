"""Bandwidth limits of guests' ports: shaped on their taps on the way in, policed by a rule on the way out."""

from __future__ import annotations

from collections.abc import Collection

from kilonova.network.plan import Limit, Plan
from kilonova.network.plane import names
from kilonova.network.plane.shell import Shell

_LEAST_BURST = 32
"""Kbit: less than some packets of the greatest size and nothing passes."""
_BYTES = 125
"""In a kbit."""
_WAIT = "50ms"
"""The longest that a packet to a guest waits before it is dropped."""


class Limits:
    """Remembers what it has set, and sets it again on a tap that was away meanwhile."""

    def __init__(self, shell: Shell, space: str) -> None:
        self._shell = shell
        self._space = space
        self._set: dict[str, Limit | None] = {}

    def apply(self, plan: Plan, plugged: Collection[str]) -> None:
        wanted = {port.id: port.to_guest for port in plan.ports if port.id in plugged}
        for port_id, limit in wanted.items():
            if limit != self._set.get(port_id):
                self._set.pop(port_id, None)
                self._clear(port_id)
                self._shell.change(self._space, commands(names.tap(port_id), limit), program="tc")
            self._set[port_id] = limit
        for port_id in set(self._set) - set(wanted):
            del self._set[port_id]

    def _clear(self, port_id: str) -> None:
        device = names.tap(port_id)
        shown = self._shell.run("tc", "-n", self._space, "qdisc", "show", "dev", device)
        if any(line.startswith("qdisc tbf ") for line in shown.splitlines()):
            self._shell.change(self._space, [f"qdisc del dev {device} root"], program="tc")


def commands(device: str, to_guest: Limit | None) -> list[str]:
    """Of `tc`, for a tap without a limit: what leaves the tap goes to the guest, and waits for its turn."""
    if to_guest is None:
        return []
    burst = burst_of(to_guest)
    return [f"qdisc add dev {device} root tbf rate {to_guest.rate}kbit burst {burst}kbit latency {_WAIT}"]


def rule(device: str, from_guest: Limit) -> str:
    """Of `nft`: what a guest sends beyond its limit is dropped. Not every kernel has `tc`'s policing."""
    rate, burst = from_guest.rate * _BYTES, burst_of(from_guest) * _BYTES
    return f'iifname "{device}" limit rate over {rate} bytes/second burst {burst} bytes drop'


def burst_of(limit: Limit) -> int:
    """In kbit: what Neutron's own drivers take where nobody says, four fifths of the rate."""
    return max(limit.burst or limit.rate * 4 // 5, _LEAST_BURST)
