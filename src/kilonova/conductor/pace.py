"""How long the conductor waits for what; tests are less patient."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """All in seconds."""

    resend: tuple[float, ...] = (3.0, 5.0, 10.0, 15.0)
    """Until a command without result is sent again; the last one repeats."""
    host_state: float = 2.0
    """How long it is believed that a host is up, or that it is down."""
    scheduler: float = 10.0
    """Until a question to the scheduler counts as lost."""
    destroy: float = 240.0
    """That a host which is up gets to destroy a guest, before it is left to a tombstone."""
    release: float = 60.0
    """That Networking gets to let a deleted server's ports go, before they are left to a tombstone."""
    stray_ports: float = 300.0
    """Between looks for ports of servers that are gone."""
    network_info: float = 240.0
    """Between looks for servers of which other ports are known than Networking has: what events lost costs."""
    quota_usage: float = 900.0
    """Between looks for projects whose usage is not the sum of their servers."""
    tombstones: float = 15.0
    """Between looks for hosts that came back."""
    retry: tuple[float, float] = (0.2, 15.0)
    """Shortest and longest wait between tries after transient failures."""


PACE = Pace()
