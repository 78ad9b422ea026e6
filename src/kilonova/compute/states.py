"""States of servers, by the names and figures that the Compute API has always had."""

from __future__ import annotations

from typing import Final

ACTIVE: Final = "active"
BUILDING: Final = "building"
PAUSED: Final = "paused"
SUSPENDED: Final = "suspended"
STOPPED: Final = "stopped"
RESCUED: Final = "rescued"
RESIZED: Final = "resized"
SOFT_DELETED: Final = "soft-delete"
DELETED: Final = "deleted"
ERROR: Final = "error"
SHELVED: Final = "shelved"
SHELVED_OFFLOADED: Final = "shelved_offloaded"

SCHEDULING: Final = "scheduling"
SPAWNING: Final = "spawning"
DELETING: Final = "deleting"
REBOOTING: Final = "rebooting"
REBOOTING_HARD: Final = "rebooting_hard"
POWERING_OFF: Final = "powering-off"
POWERING_ON: Final = "powering-on"
PAUSING: Final = "pausing"
UNPAUSING: Final = "unpausing"
SUSPENDING: Final = "suspending"
RESUMING: Final = "resuming"
REBUILDING: Final = "rebuilding"
SOFT_DELETING: Final = "soft-deleting"
RESTORING: Final = "restoring"

POWER_NOSTATE: Final = 0
POWER_RUNNING: Final = 1
POWER_PAUSED: Final = 3
POWER_SHUTDOWN: Final = 4
POWER_CRASHED: Final = 6
POWER_SUSPENDED: Final = 7
