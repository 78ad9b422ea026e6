"""One file per operation: its steps at the top, then what they do."""

from __future__ import annotations

from kilonova.engine.model import Workflow
from kilonova.workflows import (
    attach_interface,
    boot,
    boot_with_ports,
    delete,
    detach_interface,
    power,
    reboot,
    rebuild,
    soft_delete,
)
from kilonova.workflows.env import Env

ALL: dict[str, Workflow[Env]] = {
    workflow.kind: workflow
    for workflow in (
        boot.WORKFLOW,
        boot_with_ports.WORKFLOW,
        delete.WORKFLOW,
        reboot.WORKFLOW,
        rebuild.WORKFLOW,
        attach_interface.WORKFLOW,
        detach_interface.WORKFLOW,
        *power.WORKFLOWS,
        *soft_delete.WORKFLOWS,
    )
}


def step_name(kind: str, step: int) -> str | None:
    """The name of an operation's step by its number; None past its last, and for an action that needs no steps."""
    steps = ALL[kind].steps if kind in ALL else ()
    return steps[step].name if step < len(steps) else None
