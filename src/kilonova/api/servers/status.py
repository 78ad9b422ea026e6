"""A server's `status`, made of its vm_state and task_state; and the way back, for filters."""

from __future__ import annotations

from collections.abc import Iterable

_RESIZE = dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE")
_REBUILD = dict.fromkeys(("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD")
_REBOOT = dict.fromkeys(("rebooting", "reboot_pending", "reboot_started"), "REBOOT")
_HARD_REBOOT = dict.fromkeys(("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"), "HARD_REBOOT")

# vm_state -> (status, statuses that a task lends instead)
_STATUSES: dict[str, tuple[str, dict[str, str]]] = {
    "active": (
        "ACTIVE",
        {**_REBOOT, **_HARD_REBOOT, **_REBUILD, **_RESIZE, "updating_password": "PASSWORD", "migrating": "MIGRATING"},
    ),
    "building": ("BUILD", {}),
    "stopped": ("SHUTOFF", {**_RESIZE, **_REBUILD}),
    "resized": ("VERIFY_RESIZE", {"resize_reverting": "REVERT_RESIZE"}),
    "paused": ("PAUSED", {"migrating": "MIGRATING"}),
    "suspended": ("SUSPENDED", {}),
    "rescued": ("RESCUE", {}),
    "error": ("ERROR", _REBUILD),
    "deleted": ("DELETED", {}),
    "soft-delete": ("SOFT_DELETED", {}),
    "shelved": ("SHELVED", {}),
    "shelved_offloaded": ("SHELVED_OFFLOADED", {}),
}

WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
WITH_FAULT = frozenset({"ERROR", "DELETED"})

# Looked up once per server of a list.
_FLAT: dict[tuple[str, str | None], str] = {
    (vm_state, task): status for vm_state, (_, tasks) in _STATUSES.items() for task, status in tasks.items()
}
_DEFAULT = {vm_state: status for vm_state, (status, _) in _STATUSES.items()}


def status_of(vm_state: str, task_state: str | None, *, deleted: bool = False) -> str:
    if deleted:
        return "DELETED"
    if task_state is not None and (status := _FLAT.get((vm_state, task_state))):
        return status
    return _DEFAULT.get(vm_state, "UNKNOWN")


def states_of(statuses: Iterable[str]) -> tuple[list[str], list[str] | None]:
    """The vm_states and task_states that have one of the statuses (in any case of letters).

    No vm_states: no such status. Task states are None where any will do, which is so as soon
    as one status is a vm_state's own.
    """
    wanted = {status.upper() for status in statuses}
    vm_states: set[str] = set()
    task_states: set[str] = set()
    any_task = False
    for vm_state, (default, tasks) in _STATUSES.items():
        if default in wanted:
            vm_states.add(vm_state)
            any_task = True
        matching = {task for task, status in tasks.items() if status in wanted}
        if matching:
            vm_states.add(vm_state)
            task_states |= matching
    return sorted(vm_states), None if any_task else sorted(task_states)
