"""What `kilonova up` tells others about itself, through one small file that it renews every second."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from kilonova.allinone import processes
from kilonova.allinone.files import replace_file
from kilonova.allinone.supervisor import PartStatus

FRESH = 15.0
"""Seconds after which a report that was not renewed counts as silence (an event loop may stall under load)."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A running cloud at one moment."""

    owner: processes.ProcessId
    beat: float
    """Seconds after boot at which it was written."""
    ready: bool
    """Whether a server can be created."""
    reason: str
    """Why not, else empty."""
    hypervisor: str
    options: dict[str, str | int]
    """The options of `up` that it runs with."""
    parts: list[PartStatus]

    @property
    def silent_for(self) -> float:
        """Seconds since it was written."""
        return time.monotonic() - self.beat


def write_report(state_dir: Path, report: Report) -> None:
    """Publish. The file is replaced in one step; it need not survive a power cut."""
    replace_file(state_dir / "run/status.json", msgspec.json.encode(report), durable=False)


def read_report(state_dir: Path) -> Report | None:
    """The report of the `up` that runs on this directory; None when none runs (or has not reported yet)."""
    try:
        report = msgspec.json.decode((state_dir / "run/status.json").read_bytes(), type=Report)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return report if processes.is_running(report.owner) else None
